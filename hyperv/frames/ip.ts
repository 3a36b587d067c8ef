/**
 * IPv4 and UDP (RFC 791, RFC 768): building packets and taking them apart.
 *
 * @module
 */

/** An address and port. */
export interface Endpoint {
  /** IPv4 address in host order. */
  ipv4: number;
  /** UDP port. */
  port: number;
}

/** Bytes of the IPv4 header that {@linkcode udpPacket} makes. */
export const IPV4_HEADER = 20;
/** Bytes of a UDP header. */
export const UDP_HEADER = 8;
/** Protocol number of UDP. */
export const PROTOCOL_UDP = 17;

/** Sum of 16-bit words in network order, not yet folded; an odd last byte is padded with 0. */
function sumWords(data: Uint8Array, start: number, end: number): number {
  let sum = 0;
  for (let n = start; n < end; n += 2) {
    sum += (data[n]! << 8) | (n + 1 < end ? data[n + 1]! : 0);
  }
  return sum;
}

/** The Internet checksum of a sum (RFC 1071). */
function fold(sum: number): number {
  let s = sum;
  while (s > 0xffff) s = (s & 0xffff) + Math.floor(s / 0x1_0000);
  return ~s & 0xffff;
}

/** Checksum of bytes in which the checksum field is 0; over a whole valid header it is 0. */
export function checksum(
  data: Uint8Array,
  start: number,
  end: number,
  initial = 0,
): number {
  return fold(initial + sumWords(data, start, end));
}

/** An IPv4 packet with a UDP datagram, both checksums right. */
export function udpPacket(
  payload: Uint8Array,
  from: Endpoint,
  to: Endpoint,
  ttl = 64,
): Uint8Array {
  const length = IPV4_HEADER + UDP_HEADER + payload.length;
  const packet = new Uint8Array(length);
  const view = new DataView(packet.buffer);
  packet[0] = 0x45;
  view.setUint16(2, length);
  packet[8] = ttl;
  packet[9] = PROTOCOL_UDP;
  view.setUint32(12, from.ipv4);
  view.setUint32(16, to.ipv4);
  view.setUint16(10, checksum(packet, 0, IPV4_HEADER));
  const udpLength = UDP_HEADER + payload.length;
  view.setUint16(20, from.port);
  view.setUint16(22, to.port);
  view.setUint16(24, udpLength);
  packet.set(payload, IPV4_HEADER + UDP_HEADER);
  const pseudo = sumWords(packet, 12, 20) + PROTOCOL_UDP + udpLength;
  // A computed 0 is sent as all ones: 0 means "no checksum".
  view.setUint16(26, checksum(packet, IPV4_HEADER, length, pseudo) || 0xffff);
  return packet;
}

/** What {@linkcode parseUdp} finds. */
export interface UdpDatagram {
  from: Endpoint;
  to: Endpoint;
  /** A view into the packet. */
  payload: Uint8Array;
}

/**
 * Takes an IPv4 packet with a whole UDP datagram apart. Undefined: it is none, is a fragment,
 * or is damaged. The lengths in the headers count, so padding of the frame is never payload.
 */
export function parseUdp(
  packet: Uint8Array,
  verify = true,
): UdpDatagram | undefined {
  if (packet.length < IPV4_HEADER || packet[0]! >> 4 !== 4) return undefined;
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const header = (packet[0]! & 15) * 4;
  const total = view.getUint16(2);
  if (
    header < IPV4_HEADER || total < header + UDP_HEADER ||
    total > packet.length || packet[9] !== PROTOCOL_UDP ||
    (view.getUint16(6) & 0x3fff) !== 0 ||
    (verify && checksum(packet, 0, header) !== 0)
  ) return undefined;
  const length = view.getUint16(header + 4);
  if (length < UDP_HEADER || header + length > total) return undefined;
  const pseudo = sumWords(packet, 12, 20) + PROTOCOL_UDP + length;
  if (
    verify && view.getUint16(header + 6) !== 0 &&
    checksum(packet, header, header + length, pseudo) !== 0
  ) return undefined;
  return {
    from: { ipv4: view.getUint32(12), port: view.getUint16(header) },
    to: { ipv4: view.getUint32(16), port: view.getUint16(header + 2) },
    payload: packet.subarray(header + UDP_HEADER, header + length),
  };
}
