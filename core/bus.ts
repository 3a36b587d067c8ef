/** A device behind ports. */
export interface PortDevice {
  /** Reads `size` bytes (1, 2, 4) from an absolute port number. */
  readPort(port: number, size: number): number;
  /** Writes `size` bytes. */
  writePort(port: number, size: number, value: number): void;
}

const FREE: PortDevice = {
  readPort: (_port, size) => size === 4 ? 0xffff_ffff : 2 ** (8 * size) - 1,
  writePort: () => {},
};

/** Finds the device behind a port: one table look-up. */
export class PortBus {
  readonly #index = new Uint8Array(0x1_0000);
  readonly #devices: PortDevice[] = [FREE];

  /**
   * Gives a device the ports `first` to `first + count - 1`.
   *
   * @throws {RangeError} If one of them is taken or does not exist, or there are too many devices.
   */
  add(first: number, count: number, device: PortDevice): void {
    if (!(first >= 0 && count > 0 && first + count <= 0x1_0000)) {
      throw new RangeError(
        `Cannot add device: no such ports: ${count} from ${first}`,
      );
    }
    for (let port = first; port < first + count; port++) {
      if (this.#index[port] !== 0) {
        throw new RangeError(`Cannot add device: port is taken: ${port}`);
      }
    }
    if (this.#devices.length > 255) {
      throw new RangeError("Cannot add device: too many devices: 255");
    }
    this.#devices.push(device);
    this.#index.fill(this.#devices.length - 1, first, first + count);
  }

  /** IN. */
  read(port: number, size: number): number {
    return this.#devices[this.#index[port & 0xffff]!]!.readPort(port, size);
  }

  /** OUT. */
  write(port: number, size: number, value: number): void {
    this.#devices[this.#index[port & 0xffff]!]!.writePort(port, size, value);
  }
}

/** A device behind guest-physical addresses. */
export interface MmioDevice {
  /** Fills `data` (1 to 8 bytes) from `offset` in the device's range on. */
  readMmio(offset: number, data: Uint8Array, vcpu: number): void;
  /** Takes `data` (1 to 8 bytes). */
  writeMmio(offset: number, data: Uint8Array, vcpu: number): void;
}

interface MmioRange {
  readonly first: number;
  readonly end: number;
  readonly device: MmioDevice;
}

/** Finds the device behind a guest-physical address outside RAM. */
export class MmioBus {
  /** In the order of their addresses. */
  readonly #ranges: MmioRange[] = [];

  /**
   * Gives a device the addresses `first` to `first + size - 1`.
   *
   * @throws {RangeError} If one of them is taken, or they are not below 2^52.
   */
  add(first: number, size: number, device: MmioDevice): void {
    const end = first + size;
    if (!(first >= 0 && size > 0 && end <= 2 ** 52)) {
      throw new RangeError(
        `Cannot add device: no such addresses: ${size} from ${first}`,
      );
    }
    if (this.#ranges.some((other) => first < other.end && other.first < end)) {
      throw new RangeError(`Cannot add device: addresses are taken: ${first}`);
    }
    this.#ranges.push({ first, end, device });
    this.#ranges.sort((a, b) => a.first - b.first);
  }

  /** Read. An access that is not all in one device's range gives all ones. */
  read(vcpu: number, gpa: number, data: Uint8Array): void {
    const range = this.#find(gpa, data.length);
    if (range === undefined) data.fill(0xff);
    else range.device.readMmio(gpa - range.first, data, vcpu);
  }

  /** Write. An access that is not all in one device's range is lost. */
  write(vcpu: number, gpa: number, data: Uint8Array): void {
    const range = this.#find(gpa, data.length);
    range?.device.writeMmio(gpa - range.first, data, vcpu);
  }

  #find(gpa: number, length: number): MmioRange | undefined {
    const ranges = this.#ranges;
    let low = 0, high = ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (gpa < ranges[middle]!.end) high = middle;
      else low = middle + 1;
    }
    const range = ranges[low];
    return range !== undefined && gpa >= range.first &&
        gpa + length <= range.end
      ? range
      : undefined;
  }
}
