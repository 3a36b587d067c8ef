/** A program header of an image to be built. */
export interface Part {
  address: number | bigint;
  /** Linked address; default the physical one. */
  virtual?: number | bigint;
  data?: Uint8Array;
  /** Bytes in memory; default those of the file. */
  size?: number | bigint;
  /** Overrides for damage. */
  fileSize?: number | bigint;
  offset?: number | bigint;
  type?: number;
}

/** Builds an ELF executable. */
export function elf(
  bits: 32 | 64,
  entry: number | bigint,
  parts: readonly Part[],
  first = new Uint8Array(),
): Uint8Array<ArrayBuffer> {
  const wide = bits === 64;
  const headerSize = wide ? 64 : 52;
  const entrySize = wide ? 56 : 32;
  const table = headerSize + first.length;
  let length = table + parts.length * entrySize;
  const offsets = parts.map((part) => {
    const at = length;
    length += part.data?.length ?? 0;
    return at;
  });
  const image = new Uint8Array(length);
  const view = new DataView(image.buffer);
  const word = (at: number, value: number | bigint): void => {
    if (wide) view.setBigUint64(at, BigInt(value), true);
    else view.setUint32(at, Number(value), true);
  };
  image.set([0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, wide ? 62 : 3, true);
  view.setUint32(20, 1, true);
  word(24, entry);
  word(wide ? 32 : 28, table);
  view.setUint16(wide ? 52 : 40, headerSize, true);
  view.setUint16(wide ? 54 : 42, entrySize, true);
  view.setUint16(wide ? 56 : 44, parts.length, true);
  image.set(first, headerSize);
  parts.forEach((part, n) => {
    const at = table + n * entrySize;
    const data = part.data ?? new Uint8Array();
    const fileSize = part.fileSize ?? data.length;
    view.setUint32(at, part.type ?? 1, true);
    word(at + (wide ? 8 : 4), part.offset ?? offsets[n]!);
    word(at + (wide ? 16 : 8), part.virtual ?? part.address);
    word(at + (wide ? 24 : 12), part.address);
    word(at + (wide ? 32 : 16), fileSize);
    word(at + (wide ? 40 : 20), part.size ?? fileSize);
    image.set(data, offsets[n]!);
  });
  return image;
}

/** A multiboot header; `addresses` are header, load, load end, bss end, entry. */
export function multibootHeader(
  flags: number,
  addresses: readonly number[] = [],
): Uint8Array<ArrayBuffer> {
  const words = [
    0x1bad_b002,
    flags,
    -(0x1bad_b002 + flags),
    ...addresses,
  ];
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  words.forEach((word, n) => view.setUint32(n * 4, word >>> 0, true));
  return bytes;
}

/** Bytes 1, 2, 3, ... */
export function pattern(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, n) => n + 1);
}

/** Parts one after the other. */
export function concat(
  ...parts: readonly Uint8Array[]
): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(
    parts.reduce((sum, part) => sum + part.length, 0),
  );
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** What a bzImage is like; the defaults are a modern kernel's. */
export interface BzImageShape {
  version?: number;
  can64?: boolean;
  relocatable?: boolean;
  high?: boolean;
  preferred?: bigint;
  initSize?: number;
  initrdMax?: number;
  commandLineSize?: number;
  headerLength?: number;
  /** Instructions, `at` bytes from the start of the protected-mode part. */
  code?: readonly number[];
  at?: number;
}

/** Builds a bzImage with two sectors of setup. */
export function bzImage(shape: BzImageShape = {}): Uint8Array<ArrayBuffer> {
  const image = new Uint8Array(0x1000);
  const view = new DataView(image.buffer);
  image[0x1f1] = 1;
  view.setUint16(0x1fe, 0xaa55, true);
  image[0x201] = shape.headerLength ?? 0x6a;
  view.setUint32(0x202, 0x5372_6448, true);
  view.setUint16(0x206, shape.version ?? 0x20f, true);
  image[0x211] = shape.high === false ? 0 : 1;
  view.setUint32(0x22c, shape.initrdMax ?? 0x7fff_ffff, true);
  image[0x234] = shape.relocatable === false ? 0 : 1;
  image[0x236] = shape.can64 === false ? 0 : 1;
  view.setUint32(0x238, shape.commandLineSize ?? 0x7fff, true);
  view.setBigUint64(0x258, shape.preferred ?? 0x20_0000n, true);
  view.setUint32(0x260, shape.initSize ?? 0x1_0000, true);
  image.set(shape.code ?? [], 0x400 + (shape.at ?? 0x200));
  return image;
}

/** A note of an ELF file; `size` lies about its length. */
export function note(
  name: string,
  type: number,
  value: readonly number[],
  size = value.length,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12 + name.length + value.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, name.length, true);
  view.setUint32(4, size, true);
  view.setUint32(8, type, true);
  bytes.set(new TextEncoder().encode(name), 12);
  bytes.set(value, 12 + name.length);
  return bytes;
}
