/**
 * The least of a DHCP server that a kernel debug transport needs (RFC 2131): one client, one
 * lease without end.
 *
 * @module
 */

/** DHCP message types. */
export const DhcpType = { Discover: 1, Offer: 2, Request: 3, Ack: 5 } as const;

/** Fixed part up to the options, magic cookie included. */
const FIXED = 240;
const COOKIE = 0x6382_5363;

/** A client's message, as far as it matters. */
export interface DhcpRequest {
  type: number;
  /** Transaction id. */
  xid: number;
}

/** Reads a client's DISCOVER or REQUEST; undefined if the payload is none. */
export function parseDhcp(payload: Uint8Array): DhcpRequest | undefined {
  if (payload.length < FIXED + 3 || payload[0] !== 1) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  if (view.getUint32(236) !== COOKIE) return undefined;
  for (let at = FIXED; at + 1 < payload.length;) {
    const code = payload[at]!;
    if (code === 255) break;
    if (code === 0) {
      at++;
      continue;
    }
    const length = payload[at + 1]!;
    if (code === 53 && length === 1 && at + 2 < payload.length) {
      const type = payload[at + 2]!;
      return type === DhcpType.Discover || type === DhcpType.Request
        ? { type, xid: view.getUint32(4) }
        : undefined;
    }
    at += 2 + length;
  }
  return undefined;
}

/** The server's answer: OFFER to DISCOVER, ACK to REQUEST. Addresses in host order. */
export function dhcpReply(
  request: DhcpRequest,
  client: number,
  server: number,
): Uint8Array {
  const type = request.type === DhcpType.Discover
    ? DhcpType.Offer
    : DhcpType.Ack;
  const reply = new Uint8Array(FIXED + 28);
  const view = new DataView(reply.buffer);
  reply.set([2, 1, 6, 0]);
  view.setUint32(4, request.xid);
  view.setUint32(16, client);
  view.setUint32(20, server);
  view.setUint32(236, COOKIE);
  reply.set([53, 1, type, 1, 4, 255, 255, 255, 0, 3, 4], FIXED);
  view.setUint32(FIXED + 11, server);
  reply.set([51, 4, 255, 255, 255, 255, 54, 4], FIXED + 15);
  view.setUint32(FIXED + 23, server);
  reply[FIXED + 27] = 255;
  return reply;
}
