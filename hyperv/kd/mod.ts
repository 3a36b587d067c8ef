/**
 * The debugger's side of the wire: KDNET, the KD packets that it carries, and a session with a target. None of it
 * is needed to run a guest.
 *
 * @example A session with a target that prints
 * ```ts
 * import {
 *   encodeDebugIo,
 *   encodeKdPacket,
 *   KdnetTarget,
 *   KdPacketType,
 *   KdSession,
 *   memoryPair,
 * } from "@syndbg/syndbg";
 *
 * const [host, guest] = memoryPair();
 * const printed = Promise.withResolvers<string>();
 * const session = await KdSession.open({
 *   transport: host,
 *   key: "1.2.3.4",
 *   events: { onPrint: printed.resolve },
 * });
 * const target = await KdnetTarget.create("1.2.3.4", (data) => guest.send(data));
 * const print = encodeKdPacket(KdPacketType.DebugIo, 0, encodeDebugIo("hello"));
 * guest.onActivity = async () => {
 *   const event = await target.receive(guest.receive()!);
 *   if (event?.kind === "connected") await target.send(print);
 * };
 * await target.poke();
 * const text = await printed.promise;
 * session.close();
 * if (text !== "hello") throw new Error(text);
 * ```
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
export * from "./session_options.ts";
export * from "./state_change.ts";
export { type StackFrame, walkStack } from "./stack.ts";
export { NtStatus } from "./status.ts";
export * from "./symbols.ts";
export * from "./target_io.ts";
export type { WaitOptions } from "./waiters.ts";
