import type { MmioDevice } from "../../bus.ts";
import type { GuestMemory } from "../../guest_memory.ts";
import type { VirtioDevice, VirtioLink } from "./device.ts";
import { BrokenQueue, type Chain, VirtQueue } from "./queue.ts";

/** Registers (VIRTIO 1.2, 4.2.2). */
const Register = {
  Magic: 0x00,
  Version: 0x04,
  DeviceId: 0x08,
  VendorId: 0x0c,
  DeviceFeatures: 0x10,
  DeviceFeaturesSelect: 0x14,
  DriverFeatures: 0x20,
  DriverFeaturesSelect: 0x24,
  QueueSelect: 0x30,
  QueueSizeMax: 0x34,
  QueueSize: 0x38,
  QueueReady: 0x44,
  QueueNotify: 0x50,
  InterruptStatus: 0x60,
  InterruptAck: 0x64,
  Status: 0x70,
  Descriptors: 0x80,
  DescriptorsHigh: 0x84,
  Available: 0x90,
  AvailableHigh: 0x94,
  Used: 0xa0,
  UsedHigh: 0xa4,
  SharedLength: 0xb0,
  SharedBaseHigh: 0xbc,
  Config: 0x100,
} as const;

/** Bytes of a transport's registers and its device's configuration. */
export const VIRTIO_MMIO_SIZE = 0x200;

/** "virt". */
const MAGIC = 0x7472_6976;
/** "SynD", as no list of vendors is kept. */
const VENDOR = 0x446e_7953;
/** Bit 32, VIRTIO_F_VERSION_1: the driver must take it. */
const VERSION_1 = 1;
const Status = { DriverOk: 4, FeaturesOk: 8, NeedsReset: 64 } as const;
const Cause = { Used: 1, Config: 2 } as const;

/** A virtio device behind memory-mapped registers, version 2 (VIRTIO 1.2, 4.2). */
export class VirtioMmio implements MmioDevice {
  readonly #device: VirtioDevice;
  readonly #queues: readonly VirtQueue[];
  readonly #irq: (level: boolean) => void;
  readonly #link: VirtioLink;
  readonly #driverFeatures = new Uint32Array(2);
  #deviceSelect = 0;
  #driverSelect = 0;
  #queueSelect = 0;
  #status = 0;
  #causes = 0;

  /**
   * @param irq Told the level of the interrupt line.
   */
  constructor(
    memory: GuestMemory,
    device: VirtioDevice,
    irq: (level: boolean) => void,
  ) {
    this.#device = device;
    this.#irq = irq;
    this.#queues = device.queues.map((size) => new VirtQueue(memory, size));
    this.#link = {
      take: (queue) => this.#guard(queue, (found) => found.take()),
      give: (queue, chain, written) => this.#give(queue, chain, written),
    };
  }

  readMmio(offset: number, data: Uint8Array): void {
    if (offset >= Register.Config) {
      const { config } = this.#device;
      for (let n = 0; n < data.length; n++) {
        data[n] = config[offset - Register.Config + n] ?? 0;
      }
      return;
    }
    data.fill(0);
    // Registers are read as words.
    if (data.length !== 4 || offset % 4 !== 0) return;
    new DataView(data.buffer, data.byteOffset, 4)
      .setUint32(0, this.#read(offset), true);
  }

  writeMmio(offset: number, data: Uint8Array): void {
    if (offset >= Register.Config || data.length !== 4 || offset % 4 !== 0) {
      return;
    }
    const view = new DataView(data.buffer, data.byteOffset, 4);
    this.#write(offset, view.getUint32(0, true));
  }

  /** As after a reset of the machine. */
  reset(): void {
    this.#driverFeatures.fill(0);
    this.#deviceSelect = 0;
    this.#driverSelect = 0;
    this.#queueSelect = 0;
    this.#status = 0;
    for (const queue of this.#queues) queue.reset();
    this.#cause(0);
  }

  #read(register: number): number {
    const queue = this.#queues[this.#queueSelect];
    switch (register) {
      case Register.Magic:
        return MAGIC;
      case Register.Version:
        return 2;
      case Register.DeviceId:
        return this.#device.id;
      case Register.VendorId:
        return VENDOR;
      case Register.DeviceFeatures:
        return [this.#device.features, VERSION_1][this.#deviceSelect] ?? 0;
      case Register.QueueSizeMax:
        return queue?.maxSize ?? 0;
      case Register.QueueReady:
        return queue?.ready ? 1 : 0;
      case Register.InterruptStatus:
        return this.#causes;
      case Register.Status:
        return this.#status;
    }
    // There is no shared memory: its length and base read as all ones.
    return register >= Register.SharedLength &&
        register <= Register.SharedBaseHigh
      ? 0xffff_ffff
      : 0;
  }

  #write(register: number, value: number): void {
    const queue = this.#queues[this.#queueSelect];
    switch (register) {
      case Register.DeviceFeaturesSelect:
        this.#deviceSelect = value;
        return;
      case Register.DriverFeatures:
        if (
          (this.#status & Status.FeaturesOk) === 0 && this.#driverSelect < 2
        ) {
          this.#driverFeatures[this.#driverSelect] = value;
        }
        return;
      case Register.DriverFeaturesSelect:
        this.#driverSelect = value;
        return;
      case Register.QueueSelect:
        this.#queueSelect = value;
        return;
      case Register.QueueNotify:
        if (value < this.#queues.length) {
          this.#device.notify(value, this.#link);
        }
        return;
      case Register.InterruptAck:
        this.#cause(this.#causes & ~value);
        return;
      case Register.Status:
        this.#setStatus(value & 255);
        return;
    }
    if (queue === undefined) return;
    if (register === Register.QueueReady) {
      queue.ready = (value & 1) !== 0;
      return;
    }
    // The rest is for a queue that is not in use.
    if (queue.ready) return;
    switch (register) {
      case Register.QueueSize:
        if (
          value > 0 && value <= queue.maxSize && (value & (value - 1)) === 0
        ) queue.size = value;
        return;
      case Register.Descriptors:
      case Register.Available:
      case Register.Used: {
        const n = (register - Register.Descriptors) >> 4;
        const high = Math.floor(queue.rings[n]! / 2 ** 32);
        queue.rings[n] = high * 2 ** 32 + value;
        return;
      }
      case Register.DescriptorsHigh:
      case Register.AvailableHigh:
      case Register.UsedHigh: {
        const n = (register - Register.DescriptorsHigh) >> 4;
        queue.rings[n] = value * 2 ** 32 + (queue.rings[n]! % 2 ** 32);
      }
    }
  }

  #setStatus(status: number): void {
    if (status === 0) {
      this.reset();
      return;
    }
    const [low, high] = this.#driverFeatures as unknown as [number, number];
    // FEATURES_OK stays clear if the driver took what is not offered, or is of the old kind.
    if ((low & ~this.#device.features) !== 0 || high !== VERSION_1) {
      status &= ~Status.FeaturesOk;
    }
    this.#status = status | (this.#status & Status.NeedsReset);
  }

  #cause(causes: number): void {
    this.#causes = causes;
    this.#irq(causes !== 0);
  }

  #give(queue: number, chain: Chain, written: number): void {
    if (this.#guard(queue, (found) => found.give(chain, written))) {
      this.#cause(this.#causes | Cause.Used);
    }
  }

  /** Does something with a queue that is in use; a driver that breaks the rules stops its device. */
  #guard<T>(n: number, work: (queue: VirtQueue) => T): T | undefined {
    const queue = this.#queues[n];
    const running = (this.#status & (Status.DriverOk | Status.NeedsReset)) ===
      Status.DriverOk;
    if (!running || !queue?.ready) return undefined;
    try {
      return work(queue);
    } catch (error) {
      if (!(error instanceof BrokenQueue)) throw error;
      this.#status |= Status.NeedsReset;
      this.#cause(this.#causes | Cause.Config);
      return undefined;
    }
  }
}
