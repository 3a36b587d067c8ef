/**
 * Hypercall numbers, fields and status codes (TLFS chapter 3 and appendices A and B;
 * TLFS 2.0a chapter 20 for the debug calls).
 *
 * @module
 */

/** Call codes. */
export const HvCall = {
  FlushVaSpace: 0x0002,
  FlushVaList: 0x0003,
  NotifyLongSpinWait: 0x0008,
  SendIpi: 0x000b,
  FlushVaSpaceEx: 0x0013,
  FlushVaListEx: 0x0014,
  SendIpiEx: 0x0015,
  PostMessage: 0x005c,
  SignalEvent: 0x005d,
  PostDebugData: 0x0069,
  RetrieveDebugData: 0x006a,
  ResetDebugSession: 0x006b,
  ExtQueryCapabilities: 0x8001,
  ExtEnd: 0x8041,
} as const;

/** Status codes. */
export const HvStatus = {
  Success: 0x00,
  InvalidHypercallCode: 0x02,
  InvalidHypercallInput: 0x03,
  InvalidAlignment: 0x04,
  InvalidParameter: 0x05,
  AccessDenied: 0x06,
  OperationDenied: 0x08,
  InsufficientMemory: 0x0b,
  InvalidConnectionId: 0x12,
  InsufficientBuffers: 0x13,
  NotAcknowledged: 0x14,
  NoData: 0x1b,
  Inactive: 0x1c,
} as const;

/** Bits of the low word of the input value. */
export const HvInput = {
  CodeMask: 0xffff,
  Fast: 1 << 16,
  VariableShift: 17,
  VariableMask: 0x3ff,
  /** Reserved bits of the low and of the high word. */
  ReservedLow: 0xf800_0000,
  ReservedHigh: 0xf000_f000,
  RepCountMask: 0xfff,
  RepStartShift: 16,
} as const;

/** Flags of the flush calls, 64 bits. */
export const FlushFlag = {
  AllProcessors: 1n,
} as const;

/** Formats of a set of virtual processors, 64 bits. */
export const VpSetFormat = {
  /** Banks of 64 processors; a mask says which banks are given. */
  Sparse: 0n,
  All: 1n,
} as const;

/** Of a connection identifier: others are reserved or the number of an event flag. */
export const ConnectionId = {
  Mask: 0xff_ffff,
  /** Of the high word. */
  FlagNumberMask: 0xffff,
} as const;

/** Most bytes in one POST or RETRIEVE: HV_DEBUG_MAXIMUM_DATA_SIZE. */
export const DEBUG_MAX_DATA = 4088;

/** Options of the debug calls; others are accepted, for Windows 10 sets some. */
export const DebugOption = {
  PostLoop: 1,
  RetrieveLoop: 1,
  RetrieveTestActivity: 2,
  ResetPurgeIncoming: 1,
  ResetPurgeOutgoing: 2,
} as const;
