/** A program for {@linkcode FakeCpu} that calls two deep for ever. */
export const BASE = 0x10_0000n;
/** Where it begins again: `call f`. */
export const LOOP = BASE + 4n;
/** Calls {@linkcode G}. */
export const F = BASE + 0x20n;
/** Counts in RAX. */
export const G = BASE + 0x40n;

const main = [
  ...[0x55, 0x48, 0x89, 0xe5], // push rbp; mov rbp, rsp
  ...[0xe8, 0x17, 0, 0, 0], // l: call f
  0x90, // nop
  ...[0xeb, 0xf8], // jmp l
];
const f = [
  ...[0x55, 0x48, 0x89, 0xe5], // push rbp; mov rbp, rsp
  ...[0xe8, 0x17, 0, 0, 0], // call g
  ...[0x5d, 0xc3], // pop rbp; ret
];
const g = [
  ...[0x55, 0x48, 0x89, 0xe5], // push rbp; mov rbp, rsp
  ...[0x48, 0xff, 0xc0], // inc rax
  ...[0x5d, 0xc3], // pop rbp; ret
];

/** The program's bytes, for {@linkcode BASE}. */
export const PROGRAM: Uint8Array = new Uint8Array(0x60);
PROGRAM.set(main);
PROGRAM.set(f, 0x20);
PROGRAM.set(g, 0x40);

/** The program's symbols, as `nm` prints them. */
export const MAP = [
  "0000000000100000 T main",
  "0000000000100004 t loop",
  "0000000000100020 000000000000000b T f",
  "0000000000100040 0000000000000009 T g",
  "",
].join("\n");
