/**
 * KD packets as KDNET carries them, one per datagram (ReactOS windbgkd.h, KD_PACKET): the header of the
 * serial protocol without its trailing 0xAA.
 *
 * @module
 */

/** Type of a KD packet. */
export const KdPacketType = {
  /** No packet: the first datagram of a session has it. */
  Unused: 0,
  /** State change of a 32-bit protocol, obsolete. */
  StateChange32: 1,
  /** A request of the debugger, or its reply. */
  StateManipulate: 2,
  /** Text that is printed or asked for. */
  DebugIo: 3,
  /** Control: a packet has been taken. */
  Acknowledge: 4,
  /** Control: send the last packet again. */
  Resend: 5,
  /** Control: begin anew; the id is the next that its sender will use. */
  Reset: 6,
  /** The target has stopped. */
  StateChange64: 7,
  /** A break-in is looked for. */
  PollBreakIn: 8,
  /** Trace data. */
  TraceIo: 9,
  /** Use of hardware breakpoints. */
  ControlRequest: 10,
  /** A file of the host. */
  FileIo: 11,
} as const;
/** A value of {@linkcode KdPacketType}. */
export type KdPacketType = typeof KdPacketType[keyof typeof KdPacketType];

/** Bytes of a packet's header. */
export const KD_PACKET_HEADER = 16;
/** First word of a packet with a payload. */
const DATA_LEADER = 0x3030_3030;
/** First word of a packet that controls the others. */
const CONTROL_LEADER = 0x6969_6969;
const BREAK_IN = 0x62;

/** The payload of a datagram that asks a running target to stop. */
export const KD_BREAK_IN: Uint8Array = new Uint8Array([BREAK_IN]);

/** A KD packet. */
export interface KdPacket {
  /** ACKNOWLEDGE, RESEND or RESET: no payload, not acknowledged. */
  control: boolean;
  /** A value of {@linkcode KdPacketType}, or one unknown. */
  type: number;
  /** Packet id, 32 bits. */
  id: number;
  /** What is carried. */
  payload: Uint8Array;
}

/** What the payload of a datagram is. */
export type KdContent =
  | { kind: "packet"; packet: KdPacket }
  | { kind: "break-in" }
  /** The 12 bytes that open a session: zeros and the host's IPv4 address, the low byte first. */
  | { kind: "opening"; ipv4: number }
  /** Nothing that is known, or a packet that is damaged. */
  | { kind: "invalid"; reason: string };

function sum(bytes: Uint8Array): number {
  let total = 0;
  for (let n = 0; n < bytes.length; n++) total += bytes[n]!;
  return total >>> 0;
}

/** A packet with a payload. */
export function encodeKdPacket(
  type: number,
  id: number,
  payload: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(KD_PACKET_HEADER + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, DATA_LEADER, true);
  view.setUint16(4, type, true);
  view.setUint16(6, payload.length, true);
  view.setUint32(8, id, true);
  view.setUint32(12, sum(payload), true);
  bytes.set(payload, KD_PACKET_HEADER);
  return bytes;
}

/** A packet that controls the others. */
export function encodeKdControl(type: number, id: number): Uint8Array {
  const bytes = new Uint8Array(KD_PACKET_HEADER);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, CONTROL_LEADER, true);
  view.setUint16(4, type, true);
  view.setUint32(8, id, true);
  return bytes;
}

/** The payload of a session's first datagram. `ipv4` is the host's address, host order. */
export function encodeOpening(ipv4: number): Uint8Array {
  const bytes = new Uint8Array(12);
  new DataView(bytes.buffer).setUint32(8, ipv4, true);
  return bytes;
}

/** Takes the payload of a datagram apart. Bytes behind a packet (the serial trailer) do not count. */
export function parseKdContent(bytes: Uint8Array): KdContent {
  if (bytes.length === 1 && bytes[0] === BREAK_IN) return { kind: "break-in" };
  const invalid = (reason: string): KdContent => ({ kind: "invalid", reason });
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length === 12 && view.getBigUint64(0) === 0n) {
    return { kind: "opening", ipv4: view.getUint32(8, true) };
  }
  if (bytes.length < KD_PACKET_HEADER) return invalid(`${bytes.length} bytes`);
  const leader = view.getUint32(0, true);
  const control = leader === CONTROL_LEADER;
  if (!control && leader !== DATA_LEADER) {
    return invalid(`leader 0x${leader.toString(16)}`);
  }
  const type = view.getUint16(4, true);
  const length = control ? 0 : view.getUint16(6, true);
  const id = view.getUint32(8, true);
  if (KD_PACKET_HEADER + length > bytes.length) {
    return invalid(`cut off: ${length} bytes announced`);
  }
  const payload = bytes.subarray(KD_PACKET_HEADER, KD_PACKET_HEADER + length);
  if (!control && sum(payload) !== view.getUint32(12, true)) {
    return invalid("wrong checksum");
  }
  return { kind: "packet", packet: { control, type, id, payload } };
}
