/**
 * Requests of the debugger and the target's replies, packet type STATE_MANIPULATE: a header of 56 bytes
 * (ReactOS windbgkd.h, DBGKD_MANIPULATE_STATE64; offsets printed from that header compiled for amd64 and
 * compared with a capture of Windows 10), then data. A reply repeats the request's fields.
 *
 * @module
 */
import { type Fields, type Layout, readFields, writeFields } from "./layout.ts";
import { NtStatus } from "./status.ts";

/** Bytes of the header of a request or reply. */
export const MANIPULATE_HEADER = 56;

/** What all requests and replies begin with. `status` is the reply's NTSTATUS. */
export const MANIPULATE_LAYOUT = {
  api: [0, "u32"],
  level: [4, "u16"],
  processor: [6, "u16"],
  status: [8, "u32"],
} as const;

const MEMORY = {
  number: 0,
  request: { address: [16, "u64"], count: [24, "u32"] },
  reply: { address: [16, "u64"], count: [24, "u32"], actual: [28, "u32"] },
} as const;

/**
 * The manipulate calls: number, fields of the request and of the reply with their offsets in the payload.
 * `reply: undefined` says that the target acknowledges the packet and answers nothing.
 */
export const MANIPULATE = {
  /** Data read follows the reply: at most 1096 bytes over KDNET, and fewer where memory ends. */
  ReadVirtualMemory: { ...MEMORY, number: 0x3130 },
  /** Data to write follows the request. */
  WriteVirtualMemory: { ...MEMORY, number: 0x3131 },
  /** CONTEXT follows the reply. */
  GetContext: {
    number: 0x3132,
    request: { flags: [16, "u32"] },
    reply: { flags: [16, "u32"] },
  },
  /** CONTEXT follows the request. */
  SetContext: {
    number: 0x3133,
    request: { flags: [16, "u32"] },
    reply: { flags: [16, "u32"] },
  },
  /** Handles are 1 to 32. */
  WriteBreakPoint: {
    number: 0x3134,
    request: { address: [16, "u64"] },
    reply: { address: [16, "u64"], handle: [24, "u32"] },
  },
  /** Takes a breakpoint out of memory. */
  RestoreBreakPoint: {
    number: 0x3135,
    request: { handle: [16, "u32"] },
    reply: { handle: [16, "u32"] },
  },
  /** Goes on; `continueStatus` says whether the exception was handled. */
  Continue: {
    number: 0x3136,
    request: { continueStatus: [16, "u32"] },
    reply: undefined,
  },
  /** amd64: 0 KPCR, 1 KPRCB, 2 KSPECIAL_REGISTERS, 3 KTHREAD. Data follows the reply. */
  ReadControlSpace: { ...MEMORY, number: 0x3137 },
  /** Data follows the request. */
  WriteControlSpace: { ...MEMORY, number: 0x3138 },
  /** IN of 1, 2 or 4 bytes. */
  ReadIoSpace: {
    number: 0x3139,
    request: { port: [16, "u64"], size: [24, "u32"] },
    reply: { port: [16, "u64"], size: [24, "u32"], value: [28, "u32"] },
  },
  /** OUT of 1, 2 or 4 bytes. */
  WriteIoSpace: {
    number: 0x313a,
    request: { port: [16, "u64"], size: [24, "u32"], value: [28, "u32"] },
    reply: { port: [16, "u64"], size: [24, "u32"], value: [28, "u32"] },
  },
  /** Restarts the target. */
  Reboot: { number: 0x313b, request: {}, reply: undefined },
  /** Goes on, with single step if `trace` is 1; the union is packed to 4 bytes. */
  Continue2: {
    number: 0x313c,
    request: {
      continueStatus: [16, "u32"],
      trace: [20, "u32"],
      dr7: [24, "u64"],
      symbolStart: [32, "u64"],
      symbolEnd: [40, "u64"],
    },
    reply: undefined,
  },
  /** As ReadVirtualMemory. In the request `caching` stands where the reply has `actual`. */
  ReadPhysicalMemory: {
    ...MEMORY,
    number: 0x313d,
    request: {
      address: [16, "u64"],
      count: [24, "u32"],
      caching: [28, "u32"],
    },
  },
  /** As WriteVirtualMemory. */
  WritePhysicalMemory: {
    ...MEMORY,
    number: 0x313e,
    request: {
      address: [16, "u64"],
      count: [24, "u32"],
      caching: [28, "u32"],
    },
  },
  /** Counts calls of a function; no reply. */
  SetInternalBreakPoint: {
    number: 0x3142,
    request: { address: [16, "u64"], flags: [24, "u32"] },
    reply: undefined,
  },
  /** What was counted. */
  GetInternalBreakPoint: {
    number: 0x3143,
    request: { address: [16, "u64"] },
    reply: {
      address: [16, "u64"],
      flags: [24, "u32"],
      calls: [28, "u32"],
      maximumPerPeriod: [32, "u32"],
      minimumInstructions: [36, "u32"],
      maximumInstructions: [40, "u32"],
      totalInstructions: [44, "u32"],
    },
  },
  /** IN of another bus. */
  ReadIoSpaceExtended: {
    number: 0x3144,
    request: {
      size: [16, "u32"],
      interface: [20, "u32"],
      bus: [24, "u32"],
      addressSpace: [28, "u32"],
      address: [32, "u64"],
    },
    reply: { address: [32, "u64"], value: [40, "u32"] },
  },
  /** OUT of another bus. */
  WriteIoSpaceExtended: {
    number: 0x3145,
    request: {
      size: [16, "u32"],
      interface: [20, "u32"],
      bus: [24, "u32"],
      addressSpace: [28, "u32"],
      address: [32, "u64"],
      value: [40, "u32"],
    },
    reply: { address: [32, "u64"], value: [40, "u32"] },
  },
  /** What the target is (DBGKD_GET_VERSION64). */
  GetVersion: {
    number: 0x3146,
    request: {},
    reply: {
      major: [16, "u16"],
      minor: [18, "u16"],
      protocol: [20, "u8"],
      secondary: [21, "u8"],
      flags: [22, "u16"],
      machine: [24, "u16"],
      maxPacketType: [26, "u8"],
      maxStateChange: [27, "u8"],
      maxManipulate: [28, "u8"],
      simulation: [29, "u8"],
      kernelBase: [32, "u64"],
      loadedModuleList: [40, "u64"],
      debuggerDataList: [48, "u64"],
    },
  },
  /** Several breakpoints: addresses (8 bytes) and handles (4, padded to 16 in all) follow. */
  WriteBreakPointEx: {
    number: 0x3147,
    request: { breakpoints: [16, "u32"], continueStatus: [20, "u32"] },
    reply: { breakpoints: [16, "u32"], continueStatus: [20, "u32"] },
  },
  /** Several breakpoints: handles (4 bytes each) follow, statuses come back. */
  RestoreBreakPointEx: {
    number: 0x3148,
    request: { breakpoints: [16, "u32"], continueStatus: [20, "u32"] },
    reply: { breakpoints: [16, "u32"], continueStatus: [20, "u32"] },
  },
  /** Has the target stop with a bug check. */
  CauseBugCheck: { number: 0x3149, request: {}, reply: undefined },
  /** Goes on as the processor of the header; its state change follows. */
  SwitchProcessor: { number: 0x3150, request: {}, reply: undefined },
  /** RDMSR. */
  ReadMachineSpecificRegister: {
    number: 0x3152,
    request: { msr: [16, "u32"] },
    reply: { msr: [16, "u32"], low: [20, "u32"], high: [24, "u32"] },
  },
  /** WRMSR. */
  WriteMachineSpecificRegister: {
    number: 0x3153,
    request: { msr: [16, "u32"], low: [20, "u32"], high: [24, "u32"] },
    reply: { msr: [16, "u32"], low: [20, "u32"], high: [24, "u32"] },
  },
  /** The pattern follows the request; `address` of the reply is where it was found. */
  SearchMemory: {
    number: 0x3156,
    request: {
      address: [16, "u64"],
      length: [24, "u64"],
      patternLength: [32, "u32"],
    },
    reply: { address: [16, "u64"] },
  },
  /** PCI configuration space and the like; data follows the reply. */
  GetBusData: {
    number: 0x3157,
    request: {
      type: [16, "u32"],
      bus: [20, "u32"],
      slot: [24, "u32"],
      offset: [28, "u32"],
      length: [32, "u32"],
    },
    reply: { length: [32, "u32"] },
  },
  /** Data follows the request. */
  SetBusData: {
    number: 0x3158,
    request: {
      type: [16, "u32"],
      bus: [20, "u32"],
      slot: [24, "u32"],
      offset: [28, "u32"],
      length: [32, "u32"],
    },
    reply: { length: [32, "u32"] },
  },
  /** Looks for corruption in low memory. */
  CheckLowMemory: { number: 0x3159, request: {}, reply: undefined },
  /** Forgets all internal breakpoints. */
  ClearAllInternalBreakpoints: {
    number: 0x315a,
    request: {},
    reply: undefined,
  },
  /** The pattern follows the request. `flags`: 1 virtual, 2 physical. */
  FillMemory: {
    number: 0x315b,
    request: {
      address: [16, "u64"],
      length: [24, "u32"],
      flags: [28, "u16"],
      patternLength: [30, "u16"],
    },
    reply: { filled: [24, "u32"] },
  },
  /** `space`: 0 process, 1 session, 2 kernel. `flags`: 1 readable, 2 writable, 4 executable, 8 fixed. */
  QueryMemory: {
    number: 0x315c,
    request: { address: [16, "u64"] },
    reply: { address: [16, "u64"], space: [32, "u32"], flags: [36, "u32"] },
  },
  /** Changes to another partition's debugger. */
  SwitchPartition: {
    number: 0x315d,
    request: { partition: [16, "u32"] },
    reply: undefined,
  },
  /** A breakpoint with an instruction of the debugger's. */
  WriteCustomBreakpoint: {
    number: 0x315e,
    request: {
      address: [16, "u64"],
      instruction: [24, "u64"],
      handle: [32, "u32"],
      size: [36, "u8"],
      alignment: [37, "u8"],
    },
    reply: { address: [16, "u64"], handle: [32, "u32"] },
  },
  /** A part of the context follows the reply; a target may refuse, then GetContext serves. */
  GetContextEx: {
    number: 0x315f,
    request: { offset: [16, "u32"], count: [20, "u32"] },
    reply: { offset: [16, "u32"], count: [20, "u32"], copied: [24, "u32"] },
  },
  /** A part of the context follows the request; `copied` is the size of the whole. */
  SetContextEx: {
    number: 0x3160,
    request: { offset: [16, "u32"], count: [20, "u32"], copied: [24, "u32"] },
    reply: { offset: [16, "u32"], count: [20, "u32"], copied: [24, "u32"] },
  },
} as const;

/** Name of a manipulate call. */
export type ManipulateName = keyof typeof MANIPULATE;
/** Fields of a call's request. */
export type RequestFields<N extends ManipulateName> = Fields<
  typeof MANIPULATE[N]["request"]
>;
/** Fields of a call's reply; none if there is no reply. */
export type ReplyFields<N extends ManipulateName> =
  typeof MANIPULATE[N]["reply"] extends infer L
    ? L extends Layout ? Fields<L> : Record<never, never>
    : never;
/** What GetVersion tells. */
export type KdVersion = ReplyFields<"GetVersion">;

/** A request or reply, not yet told apart. */
export interface Manipulate {
  /** Number of the call. */
  api: number;
  /** Its name, if it is known. */
  name: ManipulateName | undefined;
  /** Processor level. */
  level: number;
  /** Processor number. */
  processor: number;
  /** NTSTATUS of a reply. */
  status: number;
  /** The header of 56 bytes. */
  header: Uint8Array;
  /** What follows it. */
  data: Uint8Array;
}

const NAMES: ReadonlyMap<number, ManipulateName> = new Map(
  Object.entries(MANIPULATE).map((
    [name, { number }],
  ) => [number, name as ManipulateName]),
);
const NONE = new Uint8Array(0);

/** The processor that a request is for. */
export interface ProcessorChoice {
  /** Processor level, 0 by default. */
  level?: number;
  /** Processor number, 0 by default. */
  processor?: number;
}

function encode(
  name: ManipulateName,
  layout: Layout,
  values: Readonly<Partial<Fields<Layout>>>,
  data: Uint8Array,
  status: number,
  { level = 0, processor = 0 }: ProcessorChoice,
): Uint8Array {
  const bytes = new Uint8Array(MANIPULATE_HEADER + data.length);
  const api = MANIPULATE[name].number;
  writeFields(MANIPULATE_LAYOUT, bytes, { api, level, processor, status });
  writeFields(layout, bytes, values);
  bytes.set(data, MANIPULATE_HEADER);
  return bytes;
}

/** The payload of a request. */
export function encodeRequest<N extends ManipulateName>(
  name: N,
  values: Readonly<Partial<RequestFields<N>>>,
  data: Uint8Array = NONE,
  choice: ProcessorChoice = {},
): Uint8Array {
  const layout = MANIPULATE[name].request;
  return encode(name, layout, { ...values }, data, NtStatus.Pending, choice);
}

/** The payload of a reply. */
export function encodeReply<N extends ManipulateName>(
  name: N,
  status: number,
  values: Readonly<Partial<ReplyFields<N>>>,
  data: Uint8Array = NONE,
  choice: ProcessorChoice = {},
): Uint8Array {
  const layout = MANIPULATE[name].reply ?? {};
  return encode(name, layout, { ...values }, data, status, choice);
}

/** Takes the header of a request or reply apart; undefined if it is cut off. */
export function parseManipulate(payload: Uint8Array): Manipulate | undefined {
  if (payload.length < MANIPULATE_HEADER) return undefined;
  const fields = readFields(MANIPULATE_LAYOUT, payload)!;
  return {
    ...fields,
    name: NAMES.get(fields.api),
    header: payload.subarray(0, MANIPULATE_HEADER),
    data: payload.subarray(MANIPULATE_HEADER),
  };
}

/** The fields of a request for the call `name`. */
export function requestFields<N extends ManipulateName>(
  name: N,
  header: Uint8Array,
): RequestFields<N> {
  return readFields(
    MANIPULATE[name].request as Layout,
    header,
  ) as unknown as RequestFields<N>;
}

/** The fields of a reply of the call `name`. */
export function replyFields<N extends ManipulateName>(
  name: N,
  header: Uint8Array,
): ReplyFields<N> {
  return readFields(
    (MANIPULATE[name].reply ?? {}) as Layout,
    header,
  ) as unknown as ReplyFields<N>;
}
