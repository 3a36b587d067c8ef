const PARTS = 4;
const MAX_DIGITS = 13;
const MAX_PART = 2n ** 64n - 1n;

/**
 * The 32 bytes of the control key that a KDNET key text such as `1.2.3.4` stands for: four numbers
 * in base 36, each stored as 8 bytes, the low one first (bcdedit /dbgsettings; byte order as
 * captures of Windows 10 show it). Upper case is taken too.
 *
 * @throws {SyntaxError} If it is not four parts of at most 13 digits that fit 64 bits.
 */
export function parseKdnetKey(text: string): Uint8Array {
  const fail = (why: string): never => {
    throw new SyntaxError(`Cannot parse KDNET key ${text}: ${why}`);
  };
  const parts = text.split(".");
  if (parts.length !== PARTS) {
    fail(`must be w.x.y.z, has ${parts.length} parts`);
  }
  const key = new Uint8Array(PARTS * 8);
  const view = new DataView(key.buffer);
  for (const [index, part] of parts.entries()) {
    if (!/^[0-9a-z]+$/i.test(part) || part.length > MAX_DIGITS) {
      fail(`part ${index + 1} must be 1 to ${MAX_DIGITS} of 0-9 and a-z`);
    }
    let value = 0n;
    for (const digit of part) value = value * 36n + BigInt(parseInt(digit, 36));
    if (value > MAX_PART) fail(`part ${index + 1} does not fit 64 bits`);
    view.setBigUint64(index * 8, value, true);
  }
  return key;
}
