import type { KdRegisters } from "./context.ts";
import { endsWithCall } from "./instructions.ts";
import type { KdSession } from "./session.ts";

/** A frame of a call stack. */
export interface StackFrame {
  /** Stack pointer in the frame. */
  stack: bigint;
  /** Where it goes on: the program counter, or the return address into it. */
  address: bigint;
  /** How it was found: the program counter, the frame pointer's chain, or a guess. */
  by: "pc" | "chain" | "scan";
}

/** Bytes of the stack that are looked through for a return address. */
const SCAN = 512;
/** Farthest that a frame may be from the one before. */
const MAX_FRAME = 0x1_0000n;
const MAX_CALL = 7;
/** No code is in the first page. */
const MIN_ADDRESS = 0x1000n;
const PUSH_BP = 0x55;
const RET = 0xc3;
const ENDBR = [0xf3, 0x0f, 0x1e];

/**
 * Words between the stack pointer and the return address, where the instruction at the program counter tells:
 * a function that has not made its frame yet, or has taken it down.
 */
function wordsBelowReturn(
  before: number,
  code: Uint8Array,
): number | undefined {
  const [first, second] = code;
  if (first === PUSH_BP || first === RET) return 0;
  if (ENDBR.every((byte, n) => code[n] === byte)) return 0;
  // mov rbp, rsp in either form, with a REX prefix or without.
  const move = first === 0x48 ? second : first;
  return before === PUSH_BP && (move === 0x89 || move === 0x8b) ? 1 : undefined;
}

/**
 * Walks the stack: along the chain of frame pointers, and where that breaks by looking for the next value on the
 * stack that has a CALL before it in memory. Such a frame is a guess.
 *
 * @param limit Most frames.
 */
export async function walkStack(
  session: KdSession,
  context: KdRegisters,
  limit = 32,
): Promise<StackFrame[]> {
  const long = context.has("rip");
  const size = long ? 8 : 4;
  const step = BigInt(size);
  const word = async (address: bigint): Promise<bigint | undefined> => {
    const bytes = await session.readVirtual(address, size).catch(() => {});
    return bytes?.length === size ? read(bytes, 0, size) : undefined;
  };
  const isReturn = async (address: bigint): Promise<boolean> => {
    if (address < MIN_ADDRESS) return false;
    const before = await session.readVirtual(
      address - BigInt(MAX_CALL),
      MAX_CALL,
    ).catch(() => {});
    return before?.length === MAX_CALL && endsWithCall(before);
  };

  let stack = context.get(long ? "rsp" : "esp");
  let base = context.get(long ? "rbp" : "ebp");
  const frames: StackFrame[] = [
    { stack, address: context.get(long ? "rip" : "eip"), by: "pc" },
  ];
  const pc = frames[0]!.address;
  const code = await session.readVirtual(pc - 1n, 8).catch(() => {});
  const below = code && wordsBelowReturn(code[0]!, code.subarray(1));
  if (below !== undefined) {
    const at = stack + BigInt(below) * step;
    const address = await word(at);
    if (address !== undefined && await isReturn(address)) {
      stack = at + step;
      // The caller's frame pointer may have been pushed already.
      if (below === 1) base = await word(at - step) ?? 0n;
      frames.push({ stack, address, by: "chain" });
    }
  }
  while (frames.length < limit) {
    // A frame pointer points at the caller's frame pointer, with the return address above it.
    const chained = base >= stack && base - stack < MAX_FRAME
      ? await word(base + step)
      : undefined;
    if (chained !== undefined && await isReturn(chained)) {
      const next = await word(base);
      stack = base + 2n * step;
      base = next ?? 0n;
      frames.push({ stack, address: chained, by: "chain" });
      continue;
    }
    const area = await session.readVirtual(stack, SCAN).catch(() => {});
    let found: bigint | undefined;
    for (let at = 0; area && at + size <= area.length; at += size) {
      const value = read(area, at, size);
      if (!await isReturn(value)) continue;
      found = value;
      stack += BigInt(at + size);
      break;
    }
    if (found === undefined) break;
    frames.push({ stack, address: found, by: "scan" });
  }
  return frames;
}

function read(bytes: Uint8Array, at: number, size: number): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return size === 8
    ? view.getBigUint64(at, true)
    : BigInt(view.getUint32(at, true));
}
