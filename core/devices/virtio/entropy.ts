import type { VirtioDevice, VirtioLink } from "./device.ts";

/** Most bytes that the host's source gives in one go. */
const MOST = 0x1_0000;

/** A source of random bytes (VIRTIO 1.2, 5.4): the host's. */
export class VirtioEntropy implements VirtioDevice {
  readonly id = 4;
  readonly features = 0;
  readonly queues: readonly number[] = [8];
  readonly config: Uint8Array = new Uint8Array();

  notify(queue: number, link: VirtioLink): void {
    for (let chain; (chain = link.take(queue)) !== undefined;) {
      const count = Math.min(chain.room, MOST);
      chain.write(0, crypto.getRandomValues(new Uint8Array(count)));
      link.give(queue, chain, count);
    }
  }
}
