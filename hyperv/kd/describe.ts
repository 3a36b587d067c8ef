/**
 * KD packets for a reader: a name, fields and text, for one line or one JSON object each.
 *
 * @module
 */
import { type Layout, readFields } from "./layout.ts";
import {
  MANIPULATE,
  parseManipulate,
  replyFields,
  requestFields,
} from "./manipulate.ts";
import { type KdContent, type KdPacket, KdPacketType } from "./packet.ts";
import { parseStateChange } from "./state_change.ts";
import {
  CONTROL_REQUEST_LAYOUT,
  KdControlRequest,
  KdDebugIo,
  KdFileIo,
  parseDebugIo,
  parseFileIo,
  TRACE_IO_LAYOUT,
} from "./target_io.ts";

/** What a datagram of the data channel says. */
export interface KdMessage {
  /** Name of the call, or of the packet's type if it has no calls. */
  name: string;
  /** The packet's id, where it has one. */
  id?: number;
  /** Numbers in it. */
  fields: Record<string, number | bigint>;
  /** Text in it: what is printed, a path, a name. */
  text?: string;
  /** Bytes that follow the fields. */
  data?: number;
  /** What is wrong with it. */
  problem?: string;
}

type Names = Readonly<Record<string, number>>;
/** A message of which the packet's id is not known yet. */
type Body = Omit<KdMessage, "id">;

function nameOf(names: Names, value: number): string | undefined {
  return Object.entries(names).find(([, number]) => number === value)?.[0];
}

function unknown(what: string, value: number): string {
  return `${what} 0x${value.toString(16)}`;
}

function stateChange(payload: Uint8Array): Body | undefined {
  const change = parseStateChange(payload);
  if (change === undefined) return undefined;
  const { exception, image, command, report, ...header } = change;
  const { processor, programCounter, thread } = header;
  const common = { processor, programCounter, thread };
  if (exception) {
    const { code, address, firstChance } = exception;
    const { dr6, dr7, eflags } = report;
    return {
      name: "Exception",
      fields: { code, address, firstChance, ...common, dr6, dr7, eflags },
    };
  }
  if (image) {
    const { path, ...numbers } = image;
    return {
      name: numbers.unload ? "UnloadSymbols" : "LoadSymbols",
      fields: { ...numbers, ...common },
      text: path,
    };
  }
  return {
    name: command ? "CommandString" : unknown("StateChange", header.state),
    fields: common,
    ...(command && { text: `${command.name} ${command.text}` }),
  };
}

function manipulate(
  payload: Uint8Array,
  fromTarget: boolean,
): Body | undefined {
  const call = parseManipulate(payload);
  if (call === undefined) return undefined;
  const { name, header, processor, status, data } = call;
  const common: KdMessage["fields"] = {
    processor,
    ...(fromTarget && { status }),
  };
  const rest = data.length > 0 ? { data: data.length } : {};
  if (name === undefined) {
    return {
      name: unknown("Manipulate", call.api),
      fields: common,
      ...rest,
    };
  }
  const fields = fromTarget && MANIPULATE[name].reply !== undefined
    ? replyFields(name, header)
    : requestFields(name, header);
  return { name, fields: { ...fields, ...common }, ...rest };
}

function fileIo(
  payload: Uint8Array,
  fromTarget: boolean,
): Body | undefined {
  const file = parseFileIo(payload);
  if (file === undefined) return undefined;
  const call = nameOf(KdFileIo, file.api);
  const { name: path, ...numbers } = file.create ?? { name: undefined };
  return {
    name: call === undefined ? unknown("FileIo", file.api) : `${call}File`,
    fields: {
      ...numbers,
      ...file.transfer,
      ...(!fromTarget && { status: file.status }),
    },
    ...(path && { text: path }),
    ...(!file.create && file.data.length > 0 && { data: file.data.length }),
  };
}

function simple(
  payload: Uint8Array,
  layout: Layout,
  names: Names,
  type: string,
): Body | undefined {
  const fields = readFields(layout, payload);
  if (fields === undefined) return undefined;
  const { api, ...numbers } = fields;
  const call = nameOf(names, Number(api));
  return { name: call ?? unknown(type, Number(api)), fields: numbers };
}

function debugIo(
  payload: Uint8Array,
  fromTarget: boolean,
): Body | undefined {
  const io = parseDebugIo(payload);
  if (io === undefined) return undefined;
  const { api, processor, maximum } = io;
  const name = nameOf(KdDebugIo, api) ?? unknown("DebugIo", api);
  if (fromTarget) return { name, fields: { processor }, text: io.text };
  // The answer to a prompt has its length where the prompt has its limit.
  let text = "";
  for (const byte of payload.subarray(16, 16 + maximum)) {
    text += String.fromCharCode(byte);
  }
  return { name, fields: { processor }, text };
}

function describePacket(packet: KdPacket, fromTarget: boolean): KdMessage {
  const { type, id, payload } = packet;
  const typeName = nameOf(KdPacketType, type) ?? unknown("Packet", type);
  if (packet.control) return { name: typeName, id, fields: {} };
  const parse = (): Body | undefined => {
    switch (type) {
      case KdPacketType.StateChange64:
        return stateChange(payload);
      case KdPacketType.StateManipulate:
        return manipulate(payload, fromTarget);
      case KdPacketType.DebugIo:
        return debugIo(payload, fromTarget);
      case KdPacketType.FileIo:
        return fileIo(payload, fromTarget);
      case KdPacketType.TraceIo:
        return simple(payload, TRACE_IO_LAYOUT, {}, "TraceIo");
      case KdPacketType.ControlRequest:
        return simple(
          payload,
          CONTROL_REQUEST_LAYOUT,
          KdControlRequest,
          "ControlRequest",
        );
      default:
        return { name: typeName, fields: {}, data: payload.length };
    }
  };
  return {
    id,
    ...parse() ??
      {
        name: typeName,
        fields: {},
        problem: `cut off: ${payload.length} bytes`,
      },
  };
}

/** Describes the payload of a datagram of the data channel. */
export function describeKd(content: KdContent, fromTarget: boolean): KdMessage {
  switch (content.kind) {
    case "break-in":
      return { name: "BreakIn", fields: {} };
    case "opening":
      return { name: "Opening", fields: { host: content.ipv4 } };
    case "invalid":
      return { name: "Invalid", fields: {}, problem: content.reason };
    case "packet":
      return describePacket(content.packet, fromTarget);
  }
}

/** Text in quotes, with nothing in it that a terminal would obey. */
function quote(text: string): string {
  return JSON.stringify(text).replace(
    /[\x7f-\x9f]/g,
    (letter) => `\\u00${letter.charCodeAt(0).toString(16)}`,
  );
}

/** One line: name, id, fields in hexadecimal, text in quotes. */
export function formatKd(message: KdMessage): string {
  const words = [message.name];
  if (message.id !== undefined) words.push(`id 0x${message.id.toString(16)}`);
  for (const [name, value] of Object.entries(message.fields)) {
    words.push(`${name} 0x${value.toString(16)}`);
  }
  if (message.data !== undefined) words.push(`data ${message.data} bytes`);
  if (message.text !== undefined) words.push(quote(message.text));
  if (message.problem !== undefined) words.push(`(${message.problem})`);
  return words.join(" ");
}
