/**
 * As much of x86 instructions as stepping over and walking stacks need, so that both work without a
 * disassembler (SDM volume 2, chapter 2 and appendix A).
 *
 * @module
 */

const PREFIXES = [
  0x26,
  0x2e,
  0x36,
  0x3e,
  0x64,
  0x65,
  0x66,
  0x67,
  0xf0,
  0xf2,
  0xf3,
];
const REPEAT = [0xf2, 0xf3];
/** MOVS, CMPS, STOS, LODS, SCAS; INS and OUTS are below. */
const STRING = [0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf];
const STRING_IO = [0x6c, 0x6d, 0x6e, 0x6f];
const CALL_NEAR = 0xe8;
const GROUP5 = 0xff;
/** Longest form of CALL that a return address is looked for behind, and the shortest. */
const MAX_CALL = 7;
const MIN_CALL = 2;

function isCallGroup(modrm: number | undefined): boolean {
  const extension = modrm === undefined ? -1 : (modrm >> 3) & 7;
  return extension === 2 || extension === 3;
}

/** What {@linkcode stepKind} tells. */
export type StepKind =
  /** CALL: it comes back behind itself. */
  | { kind: "call" }
  /** A repeated string instruction of so many bytes. */
  | { kind: "repeat"; length: number }
  | { kind: "other" };

/** What stepping over the instruction at the beginning of `code` has to do. */
export function stepKind(code: Uint8Array, long: boolean): StepKind {
  let at = 0;
  let repeated = false;
  while (
    PREFIXES.includes(code[at] ?? 0) || (long && (code[at] ?? 0) >> 4 === 4)
  ) {
    repeated ||= REPEAT.includes(code[at]!);
    at++;
  }
  const opcode = code[at];
  if (opcode === undefined) return { kind: "other" };
  if (repeated && (STRING.includes(opcode) || STRING_IO.includes(opcode))) {
    return { kind: "repeat", length: at + 1 };
  }
  return opcode === CALL_NEAR ||
      (opcode === GROUP5 && isCallGroup(code[at + 1]))
    ? { kind: "call" }
    : { kind: "other" };
}

/** Whether the bytes may end with a CALL, so that what follows them may be a return address. */
export function endsWithCall(code: Uint8Array): boolean {
  const { length } = code;
  if (length >= 5 && code[length - 5] === CALL_NEAR) return true;
  for (let size = MIN_CALL; size <= MAX_CALL && size <= length; size++) {
    const at = length - size;
    if (
      code[at] === GROUP5 && isCallGroup(code[at + 1]) &&
      groupLength(code[at + 1]!, code[at + 2] ?? 0) === size
    ) return true;
  }
  return false;
}

/** Length of an instruction of one opcode byte and a ModRM byte, with 32- or 64-bit addresses. */
function groupLength(modrm: number, sib: number): number {
  const mode = modrm >> 6;
  const hasSib = mode !== 3 && (modrm & 7) === 4;
  const absolute = mode === 0 &&
    ((modrm & 7) === 5 || (hasSib && (sib & 7) === 5));
  const displacement = mode === 1 ? 1 : mode === 2 || absolute ? 4 : 0;
  return 2 + (hasSib ? 1 : 0) + displacement;
}
