/**
 * Layouts of little-endian structures as data: one table serves encoding, decoding and printing.
 *
 * @module
 */

/** An unsigned field of 8, 16, 32 or 64 bits. */
export type FieldType = "u8" | "u16" | "u32" | "u64";

/** Fields of a structure: their offset in bytes and their type. */
export type Layout = Readonly<
  Record<string, readonly [offset: number, type: FieldType]>
>;

/** The values of a structure's fields: bigint where they have 64 bits. */
export type Fields<L extends Layout> = {
  -readonly [K in keyof L]: L[K][1] extends "u64" ? bigint : number;
};

const SIZE = { u8: 1, u16: 2, u32: 4, u64: 8 } as const;

/** Bytes that hold all fields. */
export function layoutSize(layout: Layout): number {
  return Math.max(
    0,
    ...Object.values(layout).map(([offset, type]) => offset + SIZE[type]),
  );
}

/** Reads a structure; undefined if the bytes end before its last field. */
export function readFields<L extends Layout>(
  layout: L,
  bytes: Uint8Array,
): Fields<L> | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const values: Record<string, number | bigint> = {};
  for (const [name, [offset, type]] of Object.entries(layout)) {
    if (offset + SIZE[type] > bytes.length) return undefined;
    switch (type) {
      case "u8":
        values[name] = view.getUint8(offset);
        break;
      case "u16":
        values[name] = view.getUint16(offset, true);
        break;
      case "u32":
        values[name] = view.getUint32(offset, true);
        break;
      case "u64":
        values[name] = view.getBigUint64(offset, true);
    }
  }
  return values as Fields<L>;
}

/**
 * Writes the given fields of a structure; values are cut to the field's width.
 *
 * @throws {RangeError} If the bytes end before a field.
 */
export function writeFields<L extends Layout>(
  layout: L,
  bytes: Uint8Array,
  values: Readonly<Partial<Fields<L>>>,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (const [name, value] of Object.entries(values)) {
    const [offset, type] = layout[name]!;
    switch (type) {
      case "u8":
        view.setUint8(offset, value as number);
        break;
      case "u16":
        view.setUint16(offset, value as number, true);
        break;
      case "u32":
        view.setUint32(offset, value as number, true);
        break;
      case "u64":
        view.setBigUint64(offset, value as bigint, true);
    }
  }
}
