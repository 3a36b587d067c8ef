/**
 * What the target asks of the debugger's host beside stopping: printing, prompts, trace data, hardware
 * breakpoints and files (ReactOS windbgkd.h, DBGKD_DEBUG_IO, DBGKD_TRACE_IO, DBGKD_CONTROL_REQUEST,
 * DBGKD_FILE_IO).
 *
 * @module
 */
import { type Fields, readFields, writeFields } from "./layout.ts";

/** Calls of packet type DEBUG_IO. */
export const KdDebugIo = {
  /** Text to print. */
  PrintString: 0x3230,
  /** A prompt; the target waits for an answer. */
  GetString: 0x3231,
} as const;

/** Header of DEBUG_IO, 16 bytes; text follows. */
export const DEBUG_IO_LAYOUT = {
  api: [0, "u32"],
  level: [4, "u16"],
  processor: [6, "u16"],
  length: [8, "u32"],
  maximum: [12, "u32"],
} as const;
const DEBUG_IO_HEADER = 16;

/** A print or a prompt. */
export interface DebugIo {
  /** A value of {@linkcode KdDebugIo}, or one unknown. */
  api: number;
  /** Processor number. */
  processor: number;
  /** What is printed, one character a byte. */
  text: string;
  /** Longest answer of a prompt, bytes. */
  maximum: number;
}

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

function textOf(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** Takes a print, a prompt or its answer apart; undefined if the header is cut off. */
export function parseDebugIo(payload: Uint8Array): DebugIo | undefined {
  const fields = readFields(DEBUG_IO_LAYOUT, payload);
  if (fields === undefined) return undefined;
  const { api, processor, length, maximum } = fields;
  const end = Math.min(payload.length, DEBUG_IO_HEADER + length);
  return {
    api,
    processor,
    text: textOf(payload.subarray(DEBUG_IO_HEADER, end)),
    maximum: api === KdDebugIo.GetString ? maximum : 0,
  };
}

/** The payload of a print or, with the longest answer wanted, of a prompt. */
export function encodeDebugIo(
  text: string,
  maximum?: number,
  processor = 0,
): Uint8Array {
  const bytes = bytesOf(text);
  const payload = new Uint8Array(DEBUG_IO_HEADER + bytes.length);
  writeFields(DEBUG_IO_LAYOUT, payload, {
    api: maximum === undefined ? KdDebugIo.PrintString : KdDebugIo.GetString,
    processor,
    length: bytes.length,
    maximum: maximum ?? 0,
  });
  payload.set(bytes, DEBUG_IO_HEADER);
  return payload;
}

/** The payload of a prompt's answer, cut to what the prompt takes. */
export function encodePromptAnswer(prompt: DebugIo, text: string): Uint8Array {
  const bytes = bytesOf(text).subarray(0, prompt.maximum);
  const payload = new Uint8Array(DEBUG_IO_HEADER + bytes.length);
  writeFields(DEBUG_IO_LAYOUT, payload, {
    api: KdDebugIo.GetString,
    processor: prompt.processor,
    maximum: bytes.length,
  });
  payload.set(bytes, DEBUG_IO_HEADER);
  return payload;
}

/** Header of TRACE_IO, 16 bytes; `length` bytes of data follow. */
export const TRACE_IO_LAYOUT = {
  api: [0, "u32"],
  level: [4, "u16"],
  processor: [6, "u16"],
  length: [8, "u32"],
} as const;

/** Calls of packet type CONTROL_REQUEST. */
export const KdControlRequest = {
  /** The target wants a hardware breakpoint. */
  RequestHardwareBreakPoint: 0x4300,
  /** The target gives it back. */
  ReleaseHardwareBreakPoint: 0x4301,
} as const;

/** CONTROL_REQUEST, 12 bytes. */
export const CONTROL_REQUEST_LAYOUT = {
  api: [0, "u32"],
  breakPoint: [4, "u32"],
  available: [8, "u32"],
} as const;

/** Calls of packet type FILE_IO. */
export const KdFileIo = {
  /** Opens a file of the host. */
  Create: 0x3430,
  /** Reads. */
  Read: 0x3431,
  /** Writes. */
  Write: 0x3432,
  /** Closes. */
  Close: 0x3433,
} as const;

/** Bytes of the header of FILE_IO; a name (UTF-16) or data follows. */
export const FILE_IO_HEADER = 64;

/** What all calls of FILE_IO begin with. */
export const FILE_IO_LAYOUT = { api: [0, "u32"], status: [4, "u32"] } as const;

/** FILE_IO Create. */
export const FILE_CREATE_LAYOUT = {
  access: [8, "u32"],
  attributes: [12, "u32"],
  share: [16, "u32"],
  disposition: [20, "u32"],
  options: [24, "u32"],
  handle: [32, "u64"],
  length: [40, "u64"],
} as const;

/** FILE_IO Read, Write and (handle only) Close. */
export const FILE_TRANSFER_LAYOUT = {
  handle: [8, "u64"],
  offset: [16, "u64"],
  length: [24, "u32"],
} as const;

/** A request for a file, or its answer. */
export interface FileIo {
  /** A value of {@linkcode KdFileIo}, or one unknown. */
  api: number;
  /** NTSTATUS of an answer. */
  status: number;
  /** With Create. */
  create?: Fields<typeof FILE_CREATE_LAYOUT> & { name: string };
  /** With Read, Write and Close. */
  transfer?: Fields<typeof FILE_TRANSFER_LAYOUT>;
  /** What follows the header. */
  data: Uint8Array;
}

/** Takes a file request or its answer apart; undefined if the header is cut off. */
export function parseFileIo(payload: Uint8Array): FileIo | undefined {
  if (payload.length < FILE_IO_HEADER) return undefined;
  const data = payload.subarray(FILE_IO_HEADER);
  const file: FileIo = { ...readFields(FILE_IO_LAYOUT, payload)!, data };
  if (file.api === KdFileIo.Create) {
    const name = new TextDecoder("utf-16le").decode(data).replace(/\0.*$/s, "");
    file.create = { ...readFields(FILE_CREATE_LAYOUT, payload)!, name };
  } else file.transfer = readFields(FILE_TRANSFER_LAYOUT, payload)!;
  return file;
}

/** The payload of a request to open a file. */
export function encodeFileCreate(name: string): Uint8Array {
  const payload = new Uint8Array(FILE_IO_HEADER + (name.length + 1) * 2);
  writeFields(FILE_IO_LAYOUT, payload, { api: KdFileIo.Create });
  const view = new DataView(payload.buffer);
  for (let n = 0; n < name.length; n++) {
    view.setUint16(FILE_IO_HEADER + n * 2, name.charCodeAt(n), true);
  }
  return payload;
}

/** The payload of an answer: the request's header with another status. */
export function encodeFileAnswer(
  request: Uint8Array,
  status: number,
): Uint8Array {
  const payload = request.slice(0, FILE_IO_HEADER);
  writeFields(FILE_IO_LAYOUT, payload, { status });
  return payload;
}
