/**
 * What the target says when it stops, packet type STATE_CHANGE64: 240 bytes and text (ReactOS windbgkd.h,
 * DBGKD_ANY_WAIT_STATE_CHANGE; offsets printed from that header and compared with a capture of Windows 10).
 *
 * @module
 */
import { type Fields, type Layout, readFields, writeFields } from "./layout.ts";

/** Why the target stopped. */
export const KdStateChange = {
  /** An exception, a breakpoint or a break-in. */
  Exception: 0x3030,
  /** An image was loaded or unloaded. */
  LoadSymbols: 0x3031,
  /** The target has a command for the debugger. */
  CommandString: 0x3032,
} as const;

/** Bytes before the text. */
export const STATE_CHANGE_LENGTH = 240;
const MAX_PARAMETERS = 15;
const MAX_INSTRUCTION_BYTES = 16;
const PARAMETERS = 64;
const INSTRUCTIONS = 216;

/** What all state changes begin with. */
export const STATE_CHANGE_LAYOUT = {
  state: [0, "u32"],
  level: [4, "u16"],
  processor: [6, "u16"],
  processors: [8, "u32"],
  thread: [16, "u64"],
  programCounter: [24, "u64"],
} as const;

/** EXCEPTION_RECORD64 and whether the exception is seen for the first time. */
export const EXCEPTION_LAYOUT = {
  code: [32, "u32"],
  flags: [36, "u32"],
  record: [40, "u64"],
  address: [48, "u64"],
  parameterCount: [56, "u32"],
  firstChance: [184, "u32"],
} as const;

/** An image; its path is the text. */
export const LOAD_SYMBOLS_LAYOUT = {
  pathLength: [32, "u32"],
  base: [40, "u64"],
  processId: [48, "u64"],
  checksum: [56, "u32"],
  size: [60, "u32"],
  unload: [64, "u8"],
} as const;

/** The control report of amd64. */
export const CONTROL_REPORT_LAYOUT = {
  dr6: [192, "u64"],
  dr7: [200, "u64"],
  eflags: [208, "u32"],
  instructionCount: [212, "u16"],
  reportFlags: [214, "u16"],
  cs: [232, "u16"],
  ds: [234, "u16"],
  es: [236, "u16"],
  fs: [238, "u16"],
} as const;

/** A stop of the target. */
export interface StateChange extends Fields<typeof STATE_CHANGE_LAYOUT> {
  /** With the state Exception. */
  exception?: Fields<typeof EXCEPTION_LAYOUT> & { parameters: bigint[] };
  /** With the state LoadSymbols. */
  image?: Omit<Fields<typeof LOAD_SYMBOLS_LAYOUT>, "pathLength"> & {
    path: string;
  };
  /** With the state CommandString: its name and the command. */
  command?: { name: string; text: string };
  /** Debug registers, flags and selectors of amd64, and the instructions at the program counter. */
  report: Fields<typeof CONTROL_REPORT_LAYOUT> & { instructions: Uint8Array };
}

function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** Takes a state change apart; undefined if it is cut off. */
export function parseStateChange(payload: Uint8Array): StateChange | undefined {
  if (payload.length < STATE_CHANGE_LENGTH) return undefined;
  const read = <L extends Layout>(layout: L): Fields<L> =>
    readFields(layout, payload)!;
  const view = new DataView(payload.buffer, payload.byteOffset);
  const report = read(CONTROL_REPORT_LAYOUT);
  const count = Math.min(report.instructionCount, MAX_INSTRUCTION_BYTES);
  const change: StateChange = {
    ...read(STATE_CHANGE_LAYOUT),
    report: {
      ...report,
      instructions: payload.slice(INSTRUCTIONS, INSTRUCTIONS + count),
    },
  };
  // The bit above says that another partition reports.
  switch (change.state & 0xffff) {
    case KdStateChange.Exception: {
      const exception = read(EXCEPTION_LAYOUT);
      const length = Math.min(exception.parameterCount, MAX_PARAMETERS);
      const parameters = Array.from(
        { length },
        (_, n) => view.getBigUint64(PARAMETERS + n * 8, true),
      );
      change.exception = { ...exception, parameters };
      break;
    }
    case KdStateChange.LoadSymbols: {
      const { pathLength, ...image } = read(LOAD_SYMBOLS_LAYOUT);
      const path = payload.subarray(
        STATE_CHANGE_LENGTH,
        STATE_CHANGE_LENGTH + pathLength,
      );
      change.image = { ...image, path: latin1(path).replace(/\0.*$/s, "") };
      break;
    }
    case KdStateChange.CommandString: {
      const [name = "", text = ""] = latin1(
        payload.subarray(STATE_CHANGE_LENGTH),
      ).split("\0");
      change.command = { name, text };
    }
  }
  return change;
}

/** What {@linkcode encodeStateChange} makes a state change of; the rest is 0. */
export interface StateChangeFields
  extends Partial<Fields<typeof STATE_CHANGE_LAYOUT>> {
  /** The exception. */
  exception?: Partial<Fields<typeof EXCEPTION_LAYOUT>>;
  /** The image. */
  image?: Partial<Omit<Fields<typeof LOAD_SYMBOLS_LAYOUT>, "pathLength">> & {
    path: string;
  };
  /** The control report; at most 16 bytes of instructions. */
  report?: Partial<Fields<typeof CONTROL_REPORT_LAYOUT>> & {
    instructions?: Uint8Array;
  };
}

/** The payload of a state change, as a target sends it. */
export function encodeStateChange(fields: StateChangeFields): Uint8Array {
  const { exception, image, report, ...header } = fields;
  const path = image && new TextEncoder().encode(`${image.path}\0`);
  const payload = new Uint8Array(STATE_CHANGE_LENGTH + (path?.length ?? 0));
  writeFields(STATE_CHANGE_LAYOUT, payload, header);
  if (exception) writeFields(EXCEPTION_LAYOUT, payload, exception);
  if (image && path) {
    const { path: _, ...numbers } = image;
    writeFields(LOAD_SYMBOLS_LAYOUT, payload, {
      ...numbers,
      pathLength: path.length,
    });
    payload.set(path, STATE_CHANGE_LENGTH);
  }
  if (report) {
    const { instructions = new Uint8Array(0), ...numbers } = report;
    payload.set(instructions.subarray(0, MAX_INSTRUCTION_BYTES), INSTRUCTIONS);
    writeFields(CONTROL_REPORT_LAYOUT, payload, {
      instructionCount: Math.min(instructions.length, MAX_INSTRUCTION_BYTES),
      ...numbers,
    });
  }
  return payload;
}
