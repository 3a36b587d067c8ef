/**
 * Sets of interrupt vectors: 256 bits in eight words from `at` on.
 *
 * @module
 */

/** Adds a vector. */
export function setVector(
  words: Uint32Array,
  at: number,
  vector: number,
): void {
  const word = at + (vector >> 5);
  words[word] = words[word]! | (1 << (vector & 31));
}

/** Takes a vector out. */
export function clearVector(
  words: Uint32Array,
  at: number,
  vector: number,
): void {
  const word = at + (vector >> 5);
  words[word] = words[word]! & ~(1 << (vector & 31));
}

/** Whether a vector is in the set. */
export function hasVector(
  words: Uint32Array,
  at: number,
  vector: number,
): boolean {
  return (words[at + (vector >> 5)]! & (1 << (vector & 31))) !== 0;
}

/** The highest vector in the set, or -1. */
export function highestVector(words: Uint32Array, at: number): number {
  for (let word = 7; word >= 0; word--) {
    const bits = words[at + word]!;
    if (bits !== 0) return 32 * word + 31 - Math.clz32(bits);
  }
  return -1;
}
