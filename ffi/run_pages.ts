import type { SystemCalls } from "./system_calls.ts";

const PAGE = 4096;
const WASM_PAGE = 0x1_0000;

/**
 * Pages that `struct kvm_run` is mapped over: parts of WebAssembly memories, whose addresses never move. A
 * part that is given back has zero pages again, so views of it read zeros and harm nobody.
 */
const free = new Map<number, Uint8Array<ArrayBuffer>[]>();

/**
 * Maps a vCPU's `struct kvm_run`.
 *
 * @param size What KVM_GET_VCPU_MMAP_SIZE said.
 * @throws {Error} If it cannot be mapped.
 */
export function mapRunPages(
  system: SystemCalls,
  fd: number,
  size: number,
): Uint8Array<ArrayBuffer> {
  const length = Math.ceil(size / PAGE) * PAGE;
  const pool = free.get(length) ?? [];
  free.set(length, pool);
  if (pool.length === 0) {
    const pages = Math.ceil(length / WASM_PAGE);
    const { buffer } = new WebAssembly.Memory({
      initial: pages,
      maximum: pages,
    });
    for (let at = 0; at + length <= pages * WASM_PAGE; at += length) {
      pool.push(new Uint8Array(buffer as ArrayBuffer, at, length));
    }
  }
  const area = pool.pop()!;
  if (!system.mapOver(area, fd)) {
    pool.push(area);
    throw new Error("Cannot create vCPU: its run page cannot be mapped");
  }
  return area;
}

/** Takes the mapping away and keeps the pages for the next vCPU. */
export function unmapRunPages(
  system: SystemCalls,
  area: Uint8Array<ArrayBuffer>,
): void {
  system.unmap(area);
  free.get(area.length)!.push(area);
}
