/**
 * A writer of ACPI Machine Language: as much of it as describes a machine without methods (ACPI 6.5,
 * chapter 20; resources: 6.4).
 *
 * @module
 */

/** Encoded AML or resource descriptors. */
export type Aml = readonly number[];

const ZERO_OP = 0x00;
const ONE_OP = 0x01;
const NAME_OP = 0x08;
const BYTE_PREFIX = 0x0a;
const WORD_PREFIX = 0x0b;
const DWORD_PREFIX = 0x0c;
const STRING_PREFIX = 0x0d;
const SCOPE_OP = 0x10;
const BUFFER_OP = 0x11;
const PACKAGE_OP = 0x12;
const EXTENDED_PREFIX = 0x5b;
const DEVICE_OP = 0x82;

function little(value: number, size: number): number[] {
  return Array.from({ length: size }, (_, n) => (value >>> (8 * n)) & 255);
}

/** A length that counts itself, and what it is of (20.2.4). */
function packaged(content: Aml): number[] {
  const { length } = content;
  if (length < 0x3f) return [length + 1, ...content];
  const bytes = length + 2 < 0x1000 ? 1 : length + 3 < 0x10_0000 ? 2 : 3;
  const total = length + 1 + bytes;
  return [
    (bytes << 6) | (total & 15),
    ...little(total >>> 4, bytes),
    ...content,
  ];
}

/** One name segment: up to four capitals, digits and underscores, with `\` before it for the root. */
function nameString(name: string): number[] {
  const root = name.startsWith("\\");
  const segment = name.slice(root ? 1 : 0).padEnd(4, "_");
  if (!/^[A-Z_][A-Z0-9_]{3}$/.test(segment)) {
    throw new RangeError(`Cannot write AML: invalid name: ${name}`);
  }
  return [...(root ? [0x5c] : []), ...new TextEncoder().encode(segment)];
}

/** An integer from 0 to 2^32 - 1. */
export function integer(value: number): Aml {
  if (value === 0) return [ZERO_OP];
  if (value === 1) return [ONE_OP];
  if (value < 0x100) return [BYTE_PREFIX, value];
  if (value < 0x1_0000) return [WORD_PREFIX, ...little(value, 2)];
  return [DWORD_PREFIX, ...little(value, 4)];
}

/** A string of ASCII characters. */
export function text(value: string): Aml {
  return [STRING_PREFIX, ...new TextEncoder().encode(value), 0];
}

/** A compressed EISA identifier such as `PNP0501` (19.3.4). */
export function eisaId(id: string): Aml {
  const [a, b, c] = [0, 1, 2].map((n) => id.charCodeAt(n) - 0x40);
  const letters = (a! << 10) | (b! << 5) | c!;
  const product = parseInt(id.slice(3), 16);
  return [
    DWORD_PREFIX,
    letters >> 8,
    letters & 255,
    product >> 8,
    product & 255,
  ];
}

/** Name (name, value). */
export function name(id: string, value: Aml): Aml {
  return [NAME_OP, ...nameString(id), ...value];
}

/** Package of values. */
export function pack(...values: Aml[]): Aml {
  return [PACKAGE_OP, ...packaged([values.length, ...values.flat()])];
}

/** Scope (name) { … }. */
export function scope(id: string, ...content: Aml[]): Aml {
  return [SCOPE_OP, ...packaged([...nameString(id), ...content.flat()])];
}

/** Device (name) { … }. */
export function device(id: string, ...content: Aml[]): Aml {
  return [
    EXTENDED_PREFIX,
    DEVICE_OP,
    ...packaged([...nameString(id), ...content.flat()]),
  ];
}

/** A buffer of resource descriptors with its end tag. */
export function resources(...descriptors: Aml[]): Aml {
  // A checksum of 0 is always right.
  const bytes = [...descriptors.flat(), 0x79, 0];
  return [BUFFER_OP, ...packaged([...integer(bytes.length), ...bytes])];
}

/** IO (Decode16, first, first, 1, count). */
export function ports(first: number, count: number): Aml {
  return [0x47, 1, ...little(first, 2), ...little(first, 2), 1, count];
}

/** IRQNoFlags of an ISA line: edge-triggered, active high. */
export function isaInterrupt(line: number): Aml {
  return [0x22, ...little(1 << line, 2)];
}

/** Memory32Fixed (ReadWrite, base, size). */
export function fixedMemory(base: number, size: number): Aml {
  return [0x86, 9, 0, 1, ...little(base, 4), ...little(size, 4)];
}

/** Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) of a global system interrupt. */
export function levelInterrupt(line: number): Aml {
  return [0x89, 6, 0, 1, 1, ...little(line, 4)];
}
