/** Told of every write to guest RAM that a vCPU did not make itself. */
export type WriteListener = (gpa: number, length: number) => void;

const WASM_PAGE = 0x1_0000;

/**
 * Guest RAM: one flat range of guest-physical addresses from 0.
 *
 * The bytes live in a `WebAssembly.Memory`, whose address never moves, so that
 * the interpreter, generated WebAssembly and a KVM memory slot see the same
 * bytes with no copy. In front of guest-physical address 0 a backend may own
 * `headroom` bytes for its own state; no method here reaches them.
 *
 * Whoever is not a vCPU writes through {@linkcode GuestMemory.write} and its
 * siblings: they tell the listeners, which drop code decoded from the range.
 */
export class GuestMemory {
  /** Bytes in a page of guest RAM. */
  static readonly PAGE_SIZE = 4096;
  /** The linear memory that holds headroom and RAM. */
  readonly memory: WebAssembly.Memory;
  /** RAM size in bytes. */
  readonly size: number;
  /** Offset of guest-physical address 0 in {@linkcode GuestMemory.memory}. */
  readonly base: number;
  /** RAM as bytes, index = guest-physical address. For reading. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** RAM as a `DataView`, offset = guest-physical address. For reading. */
  readonly view: DataView<ArrayBuffer>;
  readonly #listeners: WriteListener[] = [];

  /**
   * Makes RAM that is all zeros.
   *
   * @param size RAM in bytes: a multiple of 64 KiB, at most 3 GiB.
   * @param headroom Bytes in front of RAM, a multiple of 64 KiB.
   * @throws {RangeError} If a size is out of range or cannot be had.
   */
  constructor(size: number, headroom = 0x200_0000) {
    if (
      !Number.isSafeInteger(size) || size <= 0 || size % WASM_PAGE !== 0 ||
      size > 0xC000_0000
    ) {
      throw new RangeError(
        `Cannot create guest memory: size must be a multiple of 64 KiB up to 3 GiB: ${size}`,
      );
    }
    if (headroom < 0 || headroom % WASM_PAGE !== 0) {
      throw new RangeError(
        `Cannot create guest memory: headroom must be a multiple of 64 KiB: ${headroom}`,
      );
    }
    const pages = (size + headroom) / WASM_PAGE;
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.size = size;
    this.base = headroom;
    const buffer = this.memory.buffer as ArrayBuffer;
    this.bytes = new Uint8Array(buffer, headroom, size);
    this.view = new DataView(buffer, headroom, size);
  }

  /** Whether `length` bytes from `gpa` on are all RAM. */
  contains(gpa: number, length: number): boolean {
    return gpa >= 0 && length >= 0 && gpa + length <= this.size;
  }

  /**
   * Copies `length` bytes of RAM out.
   *
   * @throws {RangeError} If a byte is outside RAM.
   */
  read(gpa: number, length: number): Uint8Array<ArrayBuffer> {
    this.#check("read", gpa, length);
    return this.bytes.slice(gpa, gpa + length);
  }

  /**
   * Copies `data` into RAM.
   *
   * @throws {RangeError} If a byte is outside RAM; then nothing is written.
   */
  write(gpa: number, data: Uint8Array): void {
    this.#check("write", gpa, data.length);
    this.bytes.set(data, gpa);
    this.#notify(gpa, data.length);
  }

  /**
   * Sets `length` bytes of RAM to `value`.
   *
   * @throws {RangeError} If a byte is outside RAM; then nothing is written.
   */
  fill(gpa: number, length: number, value = 0): void {
    this.#check("write", gpa, length);
    this.bytes.fill(value, gpa, gpa + length);
    this.#notify(gpa, length);
  }

  /** Writes one byte. @throws {RangeError} If it is outside RAM. */
  writeU8(gpa: number, value: number): void {
    this.#check("write", gpa, 1);
    this.bytes[gpa] = value;
    this.#notify(gpa, 1);
  }

  /** Writes a 32-bit word, little-endian. @throws {RangeError} If a byte is outside RAM. */
  writeU32(gpa: number, value: number): void {
    this.#check("write", gpa, 4);
    this.view.setUint32(gpa, value, true);
    this.#notify(gpa, 4);
  }

  /** Writes a 64-bit word, little-endian. @throws {RangeError} If a byte is outside RAM. */
  writeU64(gpa: number, value: bigint): void {
    this.#check("write", gpa, 8);
    this.view.setBigUint64(gpa, value, true);
    this.#notify(gpa, 8);
  }

  /** Adds a listener for writes that no vCPU made. */
  addWriteListener(listener: WriteListener): void {
    this.#listeners.push(listener);
  }

  /** Takes a listener away. */
  removeWriteListener(listener: WriteListener): void {
    const at = this.#listeners.indexOf(listener);
    if (at >= 0) this.#listeners.splice(at, 1);
  }

  #notify(gpa: number, length: number): void {
    for (const listener of this.#listeners) listener(gpa, length);
  }

  #check(action: string, gpa: number, length: number): void {
    if (!this.contains(gpa, length)) {
      throw new RangeError(
        `Cannot ${action} guest memory: ${length} bytes at 0x${
          gpa.toString(16)
        } are outside ${this.size} bytes of RAM`,
      );
    }
  }
}
