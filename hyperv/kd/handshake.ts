/**
 * The two messages of KDNET's handshake, on the control channel: the target pokes, the debugger's host
 * responds. Layouts as in captures of Windows 10; radare2 and the simulator of ReactOS agree.
 *
 * @module
 */

/** Bytes of the target's and the host's key. */
export const HANDSHAKE_KEY = 32;
/** Bytes of a poke of Windows. */
export const POKE_LENGTH = 344;
/** Bytes of a response. */
export const RESPONSE_LENGTH = 322;
/** A poke needs no more than this: simulators send short ones. */
const MIN_POKE = 2 + HANDSHAKE_KEY;
const MESSAGE = 1;
const POKE = 1;
const RESPONSE = 2;
const TARGET = 34;
const HOST = 52;
const SESSION = 70;
const ADDRESS = 18;

/** An address and port in a poke. */
export interface PokeAddress {
  /** IPv6 address; IPv4 is mapped (::ffff:a.b.c.d). 16 bytes. */
  address: Uint8Array;
  /** UDP port. */
  port: number;
}

/** What the target says about itself, every three seconds. */
export interface Poke {
  /** The target's part of the data key; new in every poke. 32 bytes. */
  clientKey: Uint8Array;
  /** The target, offset 34. This and what follows is absent in a short poke. */
  target?: PokeAddress;
  /** The debugger's host, offset 52. */
  host?: PokeAddress;
  /** Who has the session, offset 70; port 0: nobody, the target offers one. */
  session?: PokeAddress;
}

/** What the debugger's host answers to a poke. */
export interface PokeResponse {
  /** The key of the poke. 32 bytes. */
  clientKey: Uint8Array;
  /** The host's part of the data key. 32 bytes. */
  hostKey: Uint8Array;
}

/** An IPv4 address (as a number, host order) and port in the form of a poke. */
export function mappedAddress(ipv4: number, port: number): PokeAddress {
  const address = new Uint8Array(16);
  const view = new DataView(address.buffer);
  view.setUint16(10, 0xffff);
  view.setUint32(12, ipv4);
  return { address, port };
}

/** `a.b.c.d:port`, or `[v6]:port`. */
export function formatPokeAddress({ address, port }: PokeAddress): string {
  const view = new DataView(address.buffer, address.byteOffset, 16);
  const mapped = view.getBigUint64(0) === 0n && view.getUint32(8) === 0xffff;
  if (mapped) return `${address.subarray(12, 16).join(".")}:${port}`;
  const words = Array.from({ length: 8 }, (_, n) => view.getUint16(n * 2));
  return `[${words.map((word) => word.toString(16)).join(":")}]:${port}`;
}

/** Whether a poke is the sign of life of a session, and so must not be answered. */
export function isKeepAlive(poke: Poke): boolean {
  return poke.session !== undefined && poke.session.port !== 0;
}

/** The payload of a poke: 344 bytes, or 34 if only the key is given. */
export function encodePoke(poke: Poke): Uint8Array {
  const { target, host, session } = poke;
  const whole = target ?? host ?? session;
  const payload = new Uint8Array(whole === undefined ? MIN_POKE : POKE_LENGTH);
  payload[0] = MESSAGE;
  payload[1] = POKE;
  payload.set(poke.clientKey, 2);
  const view = new DataView(payload.buffer);
  const put = (offset: number, entry: PokeAddress): void => {
    payload.set(entry.address, offset);
    view.setUint16(offset + 16, entry.port);
  };
  if (whole !== undefined) {
    put(TARGET, target ?? mappedAddress(0, 0));
    put(HOST, host ?? mappedAddress(0, 0));
    put(SESSION, session ?? mappedAddress(0, 0));
  }
  return payload;
}

/** Takes a poke apart; undefined if it is none. */
export function parsePoke(payload: Uint8Array): Poke | undefined {
  if (
    payload.length < MIN_POKE || payload[0] !== MESSAGE || payload[1] !== POKE
  ) return undefined;
  const poke: Poke = { clientKey: payload.slice(2, MIN_POKE) };
  if (payload.length < SESSION + ADDRESS) return poke;
  const view = new DataView(payload.buffer, payload.byteOffset);
  const at = (offset: number): PokeAddress => ({
    address: payload.slice(offset, offset + 16),
    port: view.getUint16(offset + 16),
  });
  return { ...poke, target: at(TARGET), host: at(HOST), session: at(SESSION) };
}

/** The payload of a response, 322 bytes. */
export function encodeResponse(response: PokeResponse): Uint8Array {
  const payload = new Uint8Array(RESPONSE_LENGTH);
  payload[0] = MESSAGE;
  payload[1] = RESPONSE;
  payload.set(response.clientKey, 2);
  payload.set(response.hostKey, 2 + HANDSHAKE_KEY);
  return payload;
}

/** Takes a response apart; undefined if it is none. */
export function parseResponse(payload: Uint8Array): PokeResponse | undefined {
  if (
    payload.length !== RESPONSE_LENGTH || payload[0] !== MESSAGE ||
    payload[1] !== RESPONSE
  ) return undefined;
  return {
    clientKey: payload.slice(2, 2 + HANDSHAKE_KEY),
    hostKey: payload.slice(2 + HANDSHAKE_KEY, 2 + 2 * HANDSHAKE_KEY),
  };
}
