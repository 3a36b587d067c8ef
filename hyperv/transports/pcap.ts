/**
 * Captures that Wireshark opens (pcap file format, draft-ietf-opsawg-pcap): bare payloads are given
 * IPv4 and UDP headers, link type RAW.
 *
 * @module
 */
import { udpPacket } from "../frames/ip.ts";

/** LINKTYPE_RAW: packets begin with an IP header. */
const LINKTYPE_RAW = 101;

/** The 24-byte file header. */
export function pcapHeader(linkType: number = LINKTYPE_RAW): Uint8Array {
  const header = new Uint8Array(24);
  const view = new DataView(header.buffer);
  view.setUint32(0, 0xa1b2_c3d4, true);
  view.setUint16(4, 2, true);
  view.setUint16(6, 4, true);
  view.setUint32(16, 0x4_0000, true);
  view.setUint32(20, linkType, true);
  return header;
}

/** One record: its 16-byte header and the packet. `time` in milliseconds since 1970. */
export function pcapRecord(packet: Uint8Array, time: number): Uint8Array {
  const record = new Uint8Array(16 + packet.length);
  const view = new DataView(record.buffer);
  view.setUint32(0, Math.floor(time / 1000), true);
  view.setUint32(4, Math.floor((time % 1000) * 1000), true);
  view.setUint32(8, packet.length, true);
  view.setUint32(12, packet.length, true);
  record.set(packet, 16);
  return record;
}

/** Addresses that a capture shows for the two ends. */
export interface CaptureAddresses {
  /** Where packets of the guest come from. */
  guest: { ipv4: number; port: number };
  /** Where they go. */
  debugger: { ipv4: number; port: number };
}

/** 10.0.5.5 and 10.0.5.1: what VirtualBox gives guest and debugger. */
export const DEFAULT_ADDRESSES: CaptureAddresses = {
  guest: { ipv4: 0x0a00_0505, port: 49_152 },
  debugger: { ipv4: 0x0a00_0501, port: 50_000 },
};

/** Writes datagrams to a sink of bytes as a capture. */
export class PcapWriter {
  readonly #sink: (bytes: Uint8Array) => void;
  readonly #addresses: CaptureAddresses;
  readonly #now: () => number;

  /** Writes the file header. */
  constructor(
    sink: (bytes: Uint8Array) => void,
    addresses: CaptureAddresses = DEFAULT_ADDRESSES,
    now: () => number = Date.now,
  ) {
    this.#sink = sink;
    this.#addresses = addresses;
    this.#now = now;
    sink(pcapHeader());
  }

  /** Adds a datagram; those too long for one IPv4 packet are left out. */
  write(payload: Uint8Array, toDebugger: boolean): void {
    if (payload.length > 65_507) return;
    const { guest, debugger: host } = this.#addresses;
    const [from, to] = toDebugger ? [guest, host] : [host, guest];
    this.#sink(pcapRecord(udpPacket(payload, from, to), this.#now()));
  }
}
