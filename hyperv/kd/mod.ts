/**
 * The debugger's side of the wire: KDNET, the KD packets that it carries, and a session with a target. None of it
 * is needed to run a guest.
 *
 * @module
 */
export {
  KdnetChannel,
  KdnetCipher,
  type KdnetContent,
  KdnetDirection,
  type KdnetHeader,
  parseKdnetHeader,
} from "./cipher.ts";
export * from "./context.ts";
export type { KdnetCounters } from "./counters.ts";
export {
  datagramJson,
  type DecodedDatagram,
  formatDatagram,
  type Handshake,
  KdnetDecoder,
} from "./decoder.ts";
export { type GoOptions, type KdBreakpoint, KdDebugger } from "./debugger.ts";
export { describeKd, formatKd, type KdMessage } from "./describe.ts";
export { evaluate, type ExpressionScope } from "./expression.ts";
export * from "./handshake.ts";
export { endsWithCall, type StepKind, stepKind } from "./instructions.ts";
export { KdnetHost, type KdnetHostEvent, type Transmit } from "./kdnet_host.ts";
export {
  KdnetTarget,
  type KdnetTargetEvent,
  type KdnetTargetOptions,
} from "./kdnet_target.ts";
export { parseKdnetKey } from "./key.ts";
export {
  type Fields,
  type FieldType,
  type Layout,
  layoutSize,
  readFields,
  writeFields,
} from "./layout.ts";
export { KdError, type KdTiming } from "./link.ts";
export * from "./manipulate.ts";
export * from "./packet.ts";
export * from "./session.ts";
export * from "./state_change.ts";
export { type StackFrame, walkStack } from "./stack.ts";
export { NtStatus } from "./status.ts";
export * from "./symbols.ts";
export * from "./target_io.ts";
