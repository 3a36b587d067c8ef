import type { Chain } from "./queue.ts";

/** What a device does with its queues. Nothing is there before the driver is ready. */
export interface VirtioLink {
  /** The next chain of a queue, or undefined. */
  take(queue: number): Chain | undefined;
  /** Gives a chain back of which `written` bytes were written. */
  give(queue: number, chain: Chain, written: number): void;
}

/** A device behind a virtio transport (VIRTIO 1.2, 5). */
export interface VirtioDevice {
  /** Its number (5, Device Types). */
  readonly id: number;
  /** Feature bits 0 to 31 that it offers. */
  readonly features: number;
  /** Most entries of each of its queues, powers of two. */
  readonly queues: readonly number[];
  /** Its configuration space. */
  readonly config: Uint8Array;
  /** The driver has put something into a queue. */
  notify(queue: number, link: VirtioLink): void;
}
