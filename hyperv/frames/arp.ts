/**
 * ARP over Ethernet (RFC 826).
 *
 * @module
 */

/** Bytes of an ARP packet for IPv4 over Ethernet. */
const LENGTH = 28;

/** Who asks for which address. */
export interface ArpRequest {
  senderMac: Uint8Array;
  sender: number;
  target: number;
}

/** Reads an ARP request behind the Ethernet header; undefined if it is none. */
export function parseArp(packet: Uint8Array): ArpRequest | undefined {
  if (packet.length < LENGTH) return undefined;
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  if (
    view.getUint32(0) !== 0x0001_0800 || view.getUint32(4) !== 0x0604_0001
  ) return undefined;
  return {
    senderMac: packet.slice(8, 14),
    sender: view.getUint32(14),
    target: view.getUint32(24),
  };
}

/** The answer: `mac` has the address that was asked for. */
export function arpReply(request: ArpRequest, mac: Uint8Array): Uint8Array {
  const reply = new Uint8Array(LENGTH);
  const view = new DataView(reply.buffer);
  view.setUint32(0, 0x0001_0800);
  view.setUint32(4, 0x0604_0002);
  reply.set(mac, 8);
  view.setUint32(14, request.target);
  reply.set(request.senderMac, 18);
  view.setUint32(24, request.sender);
  return reply;
}
