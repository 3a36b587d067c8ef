/**
 * Hyper-V's synthetic debugger in TypeScript: an x86 interpreter, a Hyper-V partition, and the
 * debug transports.
 *
 * @module
 */
export * from "./core/backend.ts";
export { GuestMemory, type WriteListener } from "./core/guest_memory.ts";
export { interpreter } from "./core/x86/backend.ts";
