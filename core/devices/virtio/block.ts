import type { VirtioDevice, VirtioLink } from "./device.ts";
import type { Chain } from "./queue.ts";

/** What is behind a block device. All calls are made while the guest waits; they may throw. */
export interface BlockStorage {
  /** Bytes. What does not fill a sector of 512 bytes is not offered. */
  readonly size: number;
  /** The guest may not write. */
  readonly readOnly: boolean;
  /** Fills `data` from `offset` on. */
  read(offset: number, data: Uint8Array): void;
  /** Writes `data` at `offset`. */
  write(offset: number, data: Uint8Array): void;
  /** Makes sure that what was written stays. */
  flush(): void;
}

const SECTOR = 512;
const HEADER = 16;
const QUEUE = 64;
/** Most buffers of data in a request, and bytes of each: with header and status they fit one chain. */
const SEGMENTS = QUEUE - 2;
const SEGMENT_BYTES = 0x4000;
const Feature = {
  SizeMax: 1 << 1,
  SegMax: 1 << 2,
  ReadOnly: 1 << 5,
  Flush: 1 << 9,
};
const Request = { In: 0, Out: 1, Flush: 4, GetId: 8 } as const;
const Result = { Ok: 0, Error: 1, Unsupported: 2 } as const;
const ID_BYTES = 20;

/** A disk (VIRTIO 1.2, 5.2). */
export class VirtioBlock implements VirtioDevice {
  readonly id = 2;
  readonly features: number;
  readonly queues: readonly number[] = [QUEUE];
  readonly config: Uint8Array = new Uint8Array(16);
  readonly #storage: BlockStorage;
  readonly #name: Uint8Array = new Uint8Array(ID_BYTES);

  /** @param name What the guest reads as the disk's serial number, 20 bytes at most. */
  constructor(storage: BlockStorage, name: string) {
    this.#storage = storage;
    new TextEncoder().encodeInto(name, this.#name);
    this.features = Feature.SizeMax | Feature.SegMax | Feature.Flush |
      (storage.readOnly ? Feature.ReadOnly : 0);
    const view = new DataView(this.config.buffer);
    view.setBigUint64(0, BigInt(Math.floor(storage.size / SECTOR)), true);
    view.setUint32(8, SEGMENT_BYTES, true);
    view.setUint32(12, SEGMENTS, true);
  }

  notify(queue: number, link: VirtioLink): void {
    for (let chain; (chain = link.take(queue)) !== undefined;) {
      link.give(queue, chain, this.#request(chain));
    }
  }

  /** Serves a request: the bytes written. */
  #request(chain: Chain): number {
    // The last byte that may be written is the status.
    if (chain.room === 0) return 0;
    const room = chain.room - 1;
    const bytes = chain.read();
    let result: number = Result.Error;
    if (bytes.length >= HEADER) {
      try {
        result = this.#serve(bytes, room, (data) => chain.write(0, data));
      } catch {
        // The file cannot be read or written: the guest hears of it.
      }
    }
    chain.write(room, Uint8Array.of(result));
    return chain.room;
  }

  #serve(
    bytes: Uint8Array,
    room: number,
    answer: (data: Uint8Array) => void,
  ): number {
    const view = new DataView(bytes.buffer);
    const offset = Number(view.getBigUint64(8, true)) * SECTOR;
    const storage = this.#storage;
    const reaches = (length: number): boolean =>
      length % SECTOR === 0 &&
      offset + length <= Math.floor(storage.size / SECTOR) * SECTOR;
    switch (view.getUint32(0, true)) {
      case Request.In: {
        if (!reaches(room)) return Result.Error;
        const data = new Uint8Array(room);
        storage.read(offset, data);
        answer(data);
        return Result.Ok;
      }
      case Request.Out: {
        const data = bytes.subarray(HEADER);
        if (storage.readOnly || !reaches(data.length)) return Result.Error;
        storage.write(offset, data);
        return Result.Ok;
      }
      case Request.Flush:
        storage.flush();
        return Result.Ok;
      case Request.GetId:
        answer(this.#name.subarray(0, room));
        return Result.Ok;
      default:
        return Result.Unsupported;
    }
  }
}
