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
