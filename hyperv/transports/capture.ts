/**
 * Captures read back: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), either byte order,
 * of the link types that debug packets are captured with. Nothing in the file is trusted.
 *
 * @module
 */
import type { DebugPeer } from "../debug_transport.ts";
import { parseUdp } from "../frames/ip.ts";

/** A captured frame with a UDP datagram over IPv4 in it. */
export interface CapturedDatagram {
  /** Number of the frame in the capture, from 1. */
  frame: number;
  /** When it was captured, milliseconds since 1970; undefined if the capture does not say. */
  time: number | undefined;
  /** Where it came from. */
  from: DebugPeer;
  /** Where it went. */
  to: DebugPeer;
  /** What it carried; a view into the file. */
  payload: Uint8Array;
}

/** Link types (tcpdump's list), and where IP begins in a frame of each. */
const LinkType = {
  Null: 0,
  Ethernet: 1,
  RawBsd: 12,
  RawOpenBsd: 14,
  Raw: 101,
  Loop: 108,
  LinuxCooked: 113,
  Ipv4: 228,
  LinuxCooked2: 276,
} as const;

const ETHERTYPE_IPV4 = 0x0800;
/** 802.1Q and 802.1ad tags. */
const VLAN_TAGS = [0x8100, 0x88a8];
const FAMILY_INET = 2;
const PCAP_MICROSECONDS = 0xa1b2_c3d4;
const PCAP_NANOSECONDS = 0xa1b2_3c4d;
const SECTION_HEADER = 0x0a0d_0d0a;
const BYTE_ORDER = 0x1a2b_3c4d;
const INTERFACE = 1;
const SIMPLE_PACKET = 3;
const ENHANCED_PACKET = 6;
const OPTION_END = 0;
const OPTION_TIME_RESOLUTION = 9;

function fail(what: string): never {
  throw new SyntaxError(`Cannot read capture: ${what}`);
}

/** The IPv4 packet in a frame; undefined if there is none. */
function ipv4Of(linkType: number, frame: Uint8Array): Uint8Array | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const after = (
    header: number,
    holds: () => boolean,
  ): Uint8Array | undefined =>
    frame.length >= header && holds() ? frame.subarray(header) : undefined;
  switch (linkType) {
    case LinkType.Ethernet: {
      let at = 12;
      while (
        at + 6 <= frame.length && VLAN_TAGS.includes(view.getUint16(at))
      ) at += 4;
      return after(at + 2, () => view.getUint16(at) === ETHERTYPE_IPV4);
    }
    case LinkType.Raw:
    case LinkType.RawBsd:
    case LinkType.RawOpenBsd:
    case LinkType.Ipv4:
      return frame;
    case LinkType.Null:
      // The family is in the order of the machine that captured.
      return after(
        4,
        () =>
          [view.getUint32(0), view.getUint32(0, true)].includes(FAMILY_INET),
      );
    case LinkType.Loop:
      return after(4, () => view.getUint32(0) === FAMILY_INET);
    case LinkType.LinuxCooked:
      return after(16, () => view.getUint16(14) === ETHERTYPE_IPV4);
    case LinkType.LinuxCooked2:
      return after(20, () => view.getUint16(0) === ETHERTYPE_IPV4);
    default:
      return undefined;
  }
}

/**
 * The UDP datagrams of a capture, in its order; frames with something else are passed over.
 *
 * @throws {SyntaxError} If the file is no capture; a capture that is cut off ends there.
 */
export function* readCapture(file: Uint8Array): Generator<CapturedDatagram> {
  if (file.length < 24) fail(`${file.length} bytes`);
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const frames = view.getUint32(0) === SECTION_HEADER
    ? pcapngFrames(view)
    : pcapFrames(view);
  let number = 0;
  for (const { linkType, time, start, end } of frames) {
    number++;
    const packet = ipv4Of(linkType, file.subarray(start, end));
    // Checksums are often left to the network card, and so wrong in a capture.
    const datagram = packet && parseUdp(packet, false);
    if (datagram) yield { frame: number, time, ...datagram };
  }
}

interface Frame {
  linkType: number;
  time: number | undefined;
  start: number;
  end: number;
}

function* pcapFrames(view: DataView): Generator<Frame> {
  const known = (magic: number): boolean =>
    magic === PCAP_MICROSECONDS || magic === PCAP_NANOSECONDS;
  const little = known(view.getUint32(0, true));
  const magic = view.getUint32(0, little);
  if (!known(magic)) fail(`magic number 0x${view.getUint32(0).toString(16)}`);
  const fraction = magic === PCAP_NANOSECONDS ? 1e6 : 1e3;
  // The upper bits say whether frames have a checksum.
  const linkType = view.getUint32(20, little) & 0xffff;
  for (let at = 24; at + 16 <= view.byteLength;) {
    const start = at + 16;
    const end = start + view.getUint32(at + 8, little);
    if (end > view.byteLength) return;
    const time = view.getUint32(at, little) * 1000 +
      view.getUint32(at + 4, little) / fraction;
    yield { linkType, time, start, end };
    at = end;
  }
}

/** An interface of a pcapng section. */
interface Interface {
  linkType: number;
  /** Ticks in a second. */
  resolution: number;
}

function* pcapngFrames(view: DataView): Generator<Frame> {
  let little = true;
  let interfaces: Interface[] = [];
  for (let at = 0; at + 12 <= view.byteLength;) {
    if (view.getUint32(at) === SECTION_HEADER) {
      little = view.getUint32(at + 8, true) === BYTE_ORDER;
      if (view.getUint32(at + 8, little) !== BYTE_ORDER) fail("byte order");
      interfaces = [];
    }
    const type = view.getUint32(at, little);
    const length = view.getUint32(at + 4, little);
    const end = at + length - 4;
    if (length < 12 || length % 4 !== 0 || end + 4 > view.byteLength) return;
    const body = at + 8;
    if (type === INTERFACE && body + 8 <= end) {
      interfaces.push({
        linkType: view.getUint16(body, little),
        resolution: timeResolution(view, body + 8, end, little),
      });
    } else if (type === ENHANCED_PACKET && body + 20 <= end) {
      const from = interfaces[view.getUint32(body, little)];
      const start = body + 20;
      const stop = start + view.getUint32(body + 12, little);
      if (from && stop <= end) {
        const ticks = view.getUint32(body + 4, little) * 2 ** 32 +
          view.getUint32(body + 8, little);
        const time = ticks / from.resolution * 1000;
        yield { linkType: from.linkType, time, start, end: stop };
      }
    } else if (type === SIMPLE_PACKET && body + 4 <= end) {
      const from = interfaces[0];
      const start = body + 4;
      const stop = Math.min(end, start + view.getUint32(body, little));
      if (from) {
        yield { linkType: from.linkType, time: undefined, start, end: stop };
      }
    }
    at += length;
  }
}

/** The option if_tsresol of an interface: ticks in a second, a million without it. */
function timeResolution(
  view: DataView,
  start: number,
  end: number,
  little: boolean,
): number {
  for (let at = start; at + 4 <= end;) {
    const code = view.getUint16(at, little);
    const length = view.getUint16(at + 2, little);
    if (code === OPTION_END) break;
    if (code === OPTION_TIME_RESOLUTION && length === 1 && at + 5 <= end) {
      const value = view.getUint8(at + 4);
      return value & 0x80 ? 2 ** (value & 0x7f) : 10 ** value;
    }
    at += 4 + Math.ceil(length / 4) * 4;
  }
  return 1e6;
}
