import type { GuestMemory } from "../../guest_memory.ts";

/** A run of guest RAM in a chain. */
interface Part {
  address: number;
  length: number;
}

/** The driver has broken the rules of its queue: the device stops until it is reset. */
export class BrokenQueue extends Error {
  override name = "BrokenQueue";
}

/** Most bytes of one chain: what a notification costs has a limit. */
const CHAIN_BYTES = 0x10_0000;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const NO_INTERRUPT = 1;

function copyOut(memory: GuestMemory, parts: readonly Part[]): Uint8Array {
  const all = new Uint8Array(
    parts.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const { address, length } of parts) {
    all.set(memory.bytes.subarray(address, address + length), at);
    at += length;
  }
  return all;
}

/** What the driver offers in one go: bytes to be read, then room to be written. All of it is in RAM. */
export class Chain {
  /** Bytes that may be written. */
  readonly room: number;
  readonly #memory: GuestMemory;
  readonly #readable: readonly Part[];
  readonly #writable: readonly Part[];

  /** @param head Number of its first descriptor. */
  constructor(
    memory: GuestMemory,
    readonly head: number,
    readable: readonly Part[],
    writable: readonly Part[],
  ) {
    this.#memory = memory;
    this.#readable = readable;
    this.#writable = writable;
    this.room = writable.reduce((sum, { length }) => sum + length, 0);
  }

  /** A copy of the bytes to be read. */
  read(): Uint8Array {
    return copyOut(this.#memory, this.#readable);
  }

  /** Writes from `offset` on; what there is no room for is lost. */
  write(offset: number, data: Uint8Array): void {
    for (const { address, length } of this.#writable) {
      if (data.length === 0) return;
      if (offset < length) {
        const part = data.subarray(0, length - offset);
        this.#memory.write(address + offset, part);
        data = data.subarray(part.length);
        offset = 0;
      } else offset -= length;
    }
  }
}

/** A split virtqueue (VIRTIO 1.2, 2.7), from the device's side. Nothing in it is trusted. */
export class VirtQueue {
  /** Entries, a power of two up to {@linkcode VirtQueue.maxSize}. */
  size: number;
  /** Whether the driver has set it up. */
  ready = false;
  /** Guest-physical addresses of descriptors, available ring and used ring. */
  readonly rings: [number, number, number] = [0, 0, 0];
  /** Most entries. */
  readonly maxSize: number;
  readonly #memory: GuestMemory;
  #next = 0;
  #used = 0;

  constructor(memory: GuestMemory, maxSize: number) {
    this.#memory = memory;
    this.maxSize = maxSize;
    this.size = maxSize;
  }

  /** As before the driver set it up. */
  reset(): void {
    this.size = this.maxSize;
    this.ready = false;
    this.rings.fill(0);
    this.#next = 0;
    this.#used = 0;
  }

  /**
   * The next chain, or undefined if there is none.
   *
   * @throws {BrokenQueue} If rings or descriptors are not what they have to be.
   */
  take(): Chain | undefined {
    this.#check();
    const { view } = this.#memory;
    const available = this.rings[1];
    const waiting = (view.getUint16(available + 2, true) - this.#next) & 0xffff;
    if (waiting === 0) return undefined;
    if (waiting > this.size) throw new BrokenQueue("more chains than entries");
    const head = view.getUint16(
      available + 4 + 2 * (this.#next & (this.size - 1)),
      true,
    );
    this.#next = (this.#next + 1) & 0xffff;
    return this.#chain(head);
  }

  /**
   * Gives a chain back of which `written` bytes were written; says whether the driver wants to be
   * interrupted.
   *
   * @throws {BrokenQueue} If the rings are not in RAM.
   */
  give(chain: Chain, written: number): boolean {
    this.#check();
    const [, available, used] = this.rings;
    const memory = this.#memory;
    const element = new DataView(new ArrayBuffer(8));
    element.setUint32(0, chain.head, true);
    element.setUint32(4, written, true);
    const slot = used + 4 + 8 * (this.#used & (this.size - 1));
    memory.write(slot, new Uint8Array(element.buffer));
    this.#used = (this.#used + 1) & 0xffff;
    memory.write(
      used + 2,
      Uint8Array.of(this.#used & 255, this.#used >> 8),
    );
    return (memory.view.getUint16(available, true) & NO_INTERRUPT) === 0;
  }

  #check(): void {
    const { size } = this;
    const bytes = [16 * size, 6 + 2 * size, 6 + 8 * size];
    this.rings.forEach((address, n) => {
      if (!this.#memory.contains(address, bytes[n]!)) {
        throw new BrokenQueue("a ring is outside RAM");
      }
    });
  }

  #chain(head: number): Chain {
    const { view } = this.#memory;
    const readable: Part[] = [], writable: Part[] = [];
    let total = 0;
    let at = head;
    // A chain has at most as many descriptors as there are: a longer one is a loop.
    for (let n = 0; n < this.size; n++) {
      if (at >= this.size) throw new BrokenQueue("no such descriptor");
      const descriptor = this.rings[0] + 16 * at;
      const address = Number(view.getBigUint64(descriptor, true));
      const length = view.getUint32(descriptor + 8, true);
      const flags = view.getUint16(descriptor + 12, true);
      total += length;
      if (total > CHAIN_BYTES) throw new BrokenQueue("a chain is too long");
      if (!this.#memory.contains(address, length)) {
        throw new BrokenQueue("a buffer is outside RAM");
      }
      if ((flags & INDIRECT) !== 0) throw new BrokenQueue("indirect");
      if ((flags & WRITE) !== 0) writable.push({ address, length });
      else if (writable.length > 0) {
        throw new BrokenQueue("what is read comes after what is written");
      } else readable.push({ address, length });
      if ((flags & NEXT) === 0) {
        return new Chain(this.#memory, head, readable, writable);
      }
      at = view.getUint16(descriptor + 14, true);
    }
    throw new BrokenQueue("a chain is a loop");
  }
}
