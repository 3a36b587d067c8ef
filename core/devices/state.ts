/**
 * The state of devices as plain data. What comes back may be a hostile file: every field is
 * checked before any is used.
 *
 * @module
 */

/** A device's state: numbers, bigints, switches and arrays of numbers by name. */
export type DeviceState = Record<string, unknown>;

/** An array of `length` integers from 0 to `max`. */
interface Words {
  readonly length: number;
  readonly max: number;
}

/**
 * What a field may be: an integer from 0 to the given number, a switch, a time (nanoseconds from now,
 * Infinity for never), an unsigned 64-bit number, or an array of integers.
 */
export type FieldKind = number | "switch" | "time" | "bigint" | Words;

/** The type of a field by its kind. */
type FieldOf<K> = K extends "switch" ? boolean
  : K extends "bigint" ? bigint
  : K extends Words ? number[]
  : number;

function fits(value: unknown, kind: FieldKind): boolean {
  switch (kind) {
    case "switch":
      return typeof value === "boolean";
    case "time":
      return typeof value === "number" && value >= 0;
    case "bigint":
      return typeof value === "bigint" && value >= 0n && value < 1n << 64n;
  }
  if (typeof kind === "number") {
    return typeof value === "number" && Number.isInteger(value) &&
      value >= 0 && value <= kind;
  }
  return Array.isArray(value) && value.length === kind.length &&
    value.every((word) => fits(word, kind.max));
}

/**
 * Checks a device's state.
 *
 * @param device Its name, for the error.
 * @throws {TypeError} If a field is missing or out of range.
 */
export function checkState<S extends Record<string, FieldKind>>(
  device: string,
  state: unknown,
  kinds: S,
): { [K in keyof S]: FieldOf<S[K]> } {
  const fields = typeof state === "object" && state !== null
    ? state as DeviceState
    : {};
  const checked: DeviceState = {};
  for (const [name, kind] of Object.entries(kinds)) {
    const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (!fits(value, kind)) {
      throw new TypeError(`Cannot restore ${device}: invalid ${name}`);
    }
    checked[name] = Array.isArray(value) ? [...value] : value;
  }
  return checked as { [K in keyof S]: FieldOf<S[K]> };
}
