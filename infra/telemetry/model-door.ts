/** Who may change the model over HTTP, and to what: who reads a file of the instance's user, and bundles below one folder. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { chmod, mkdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { dirname, isAbsolute, relative } from 'node:path';
import { messageOf, PipelineError } from '../../schemas/errors.ts';

export interface ModelDoor {
  /** Sent as `authorization: Bearer …`. */
  readonly token: string;
  /** Bundles are taken from in here. */
  readonly allowedFolder: string;
}

/**
 * Makes the file where there is none; one that others might read is closed to them.
 *
 * @throws PipelineError `CONFIG_INVALID` where it can be neither read nor made
 */
export async function openToken(file: string): Promise<string> {
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    const made = await writeFile(file, `${randomBytes(32).toString('base64url')}\n`, { flag: 'wx', mode: 0o600 }).catch(
      (error: NodeJS.ErrnoException) => error,
    );
    if (made instanceof Error && made.code !== 'EEXIST') throw made;
    // A mounted secret cannot be changed; who mounts it says who reads it.
    await chmod(file, 0o600).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EROFS' && error.code !== 'EPERM') throw error;
    });
  } catch (cause) {
    // A folder that is read only may hold one.
    if ((cause as NodeJS.ErrnoException).code !== 'EROFS')
      throw new PipelineError('CONFIG_INVALID', `model.tokenFile: ${file} cannot be made (${messageOf(cause)})`, { cause });
  }
  return readToken(file);
}

/** @throws PipelineError `CONFIG_INVALID` where it cannot be read, or holds too little to be a secret */
export async function readToken(file: string): Promise<string> {
  let token: string;
  try {
    token = (await readFile(file, 'utf8')).trim();
  } catch (cause) {
    const message = `model.tokenFile: ${file} cannot be read (${messageOf(cause)}); the instance makes it, for its own user`;
    throw new PipelineError('CONFIG_INVALID', message, { cause });
  }
  if (token.length < 16)
    throw new PipelineError(
      'CONFIG_INVALID',
      `model.tokenFile: ${file} holds ${token.length} characters; at least 16 are needed`,
    );
  return token;
}

/** In constant time. */
export function isAuthorized(header: string | undefined, token: string): boolean {
  const given = /^Bearer (\S+)$/i.exec(header ?? '')?.[1] ?? '';
  return timingSafeEqual(digestOf(given), digestOf(token));
}

const digestOf = (text: string): Buffer => createHash('sha256').update(text).digest();

/** Whether a path lies in a folder, by what their links lead to. */
export async function liesIn(path: string, folder: string): Promise<boolean> {
  try {
    const way = relative(await realpath(folder), await realpath(path));
    return way !== '..' && !way.startsWith('../') && !isAbsolute(way);
  } catch {
    return false;
  }
}
