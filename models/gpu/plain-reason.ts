/** What the runtime says when a GPU fails, without the paths of its own sources. */
export const plainReason = (message: string): string =>
  /Failed to get a WebGPU adapter/.test(message)
    ? 'no adapter: no Vulkan loader (libvulkan.so.1), or no driver'
    : message
        .trim()
        .replace(/^\/\S+ /, '')
        .slice(0, 300);
