/** Who owns which partition: the same number of every input topic goes to one member, which keeps what it had where it can. */
import { AssignerProtocol, type PartitionAssigner } from 'kafkajs';
import type { JoinAware } from './kafkajs-internals.ts';

export const ASSIGNER_NAME = 'hstu-co-partitioned-sticky';

export interface GroupMember {
  readonly memberId: string;
  /** Partition numbers it owned before. */
  readonly owned: readonly number[];
}

/**
 * Shares `partitions` out: no member has more than one partition more than another, and as few as possible move.
 *
 * Deterministic in its input, whatever the order of the members. A partition that two members claim (a zombie has come
 * back) goes to neither by right.
 */
export function assignPartitions(
  members: readonly GroupMember[],
  partitions: readonly number[],
): ReadonlyMap<string, readonly number[]> {
  const sorted = [...members].sort((a, b) => (a.memberId < b.memberId ? -1 : 1));
  const claims = new Map<number, number>();
  for (const { owned } of sorted) for (const p of owned) claims.set(p, (claims.get(p) ?? 0) + 1);
  const free = new Set(partitions);
  const assigned = new Map<string, number[]>(sorted.map(({ memberId }) => [memberId, []]));

  const floor = Math.floor(partitions.length / sorted.length);
  let extras = partitions.length % sorted.length;
  // Those who own most keep most, so that a partition more than the others have falls to one that has it already.
  for (const { memberId, owned } of [...sorted].sort((a, b) => b.owned.length - a.owned.length)) {
    const kept = assigned.get(memberId)!;
    for (const p of [...owned].sort((a, b) => a - b)) {
      if (!free.has(p) || claims.get(p) !== 1) continue;
      if (kept.length >= floor && (kept.length > floor || extras === 0)) continue;
      if (kept.length === floor) extras--;
      kept.push(p);
      free.delete(p);
    }
  }
  const byLoad = () => sorted.map(({ memberId }) => assigned.get(memberId)!).sort((a, b) => a.length - b.length)[0]!;
  for (const p of [...free].sort((a, b) => a - b)) byLoad().push(p);
  return assigned;
}

export interface CoPartitionedOptions {
  /** Partition numbers that this member owns now. */
  readonly owned: () => readonly number[];
  /** Awaited before the member joins, again or for the first time: the last moment to commit what it owns. */
  readonly beforeJoin: () => Promise<void>;
}

/** The assigner of one member, for kafkajs' `partitionAssigners`. */
export function coPartitionedAssigner({ owned, beforeJoin }: CoPartitionedOptions): PartitionAssigner {
  return ({ cluster }) => {
    const assigner: ReturnType<PartitionAssigner> & JoinAware = {
      name: ASSIGNER_NAME,
      version: 0,
      beforeJoin,
      protocol: ({ topics }) => ({
        name: ASSIGNER_NAME,
        metadata: AssignerProtocol.MemberMetadata.encode({
          version: 0,
          topics,
          userData: Buffer.from(JSON.stringify(owned())),
        }),
      }),
      async assign({ members, topics }) {
        const known = topics.map((topic) => cluster.findTopicPartitionMetadata(topic).map(({ partitionId }) => partitionId));
        const partitions = [...new Set(known.flat())].sort((a, b) => a - b);
        const group = members.map(({ memberId, memberMetadata }) => ({ memberId, owned: ownedOf(memberMetadata) }));
        return [...assignPartitions(group, partitions)].map(([memberId, numbers]) => ({
          memberId,
          memberAssignment: AssignerProtocol.MemberAssignment.encode({
            version: 0,
            assignment: Object.fromEntries(topics.map((topic, i) => [topic, numbers.filter((p) => known[i]!.includes(p))])),
            userData: Buffer.alloc(0),
          }),
        }));
      },
    };
    return assigner;
  };
}

/** What a member said it owns; nothing where it said nothing sensible (another version of us). */
function ownedOf(metadata: Buffer): number[] {
  try {
    const owned: unknown = JSON.parse(AssignerProtocol.MemberMetadata.decode(metadata)?.userData.toString() || '[]');
    return Array.isArray(owned) ? owned.filter((p): p is number => Number.isInteger(p)) : [];
  } catch {
    return [];
  }
}
