/**
 * Packets of GDB's remote serial protocol (GDB manual, E.1): `$data#checksum`, and the bytes
 * between them. Data is a string with one character per byte.
 *
 * @module
 */

/** Most characters of data in a packet, both ways; what `qSupported` tells as PacketSize. */
export const PACKET_SIZE = 0x4000;

/** What a {@linkcode PacketReader} finds in the bytes of a client. */
export type Received =
  /** A packet whose checksum is right. */
  | { kind: "packet"; data: string }
  /** A packet that is too long, or whose checksum is wrong. */
  | { kind: "damaged" }
  /** The byte 3, Ctrl-C. */
  | { kind: "interrupt" }
  /** The last packet has arrived. */
  | { kind: "ack" }
  /** The last packet has to be sent again. */
  | { kind: "nack" };

const DOLLAR = 0x24, HASH = 0x23, ESCAPE = 0x7d, STAR = 0x2a;
const PLUS = 0x2b, MINUS = 0x2d, INTERRUPT = 3;

/** Bytes of a string with one character per byte. */
export function toBytes(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/** A string with one character per byte. */
export function fromBytes(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** A packet as it goes over the wire. */
export function encodePacket(data: string): Uint8Array<ArrayBuffer> {
  const body: number[] = [];
  for (const byte of toBytes(data)) {
    if (
      byte === DOLLAR || byte === HASH || byte === ESCAPE || byte === STAR
    ) body.push(ESCAPE, byte ^ 0x20);
    else body.push(byte);
  }
  const sum = body.reduce((a, b) => a + b, 0) & 255;
  const end = `#${sum.toString(16).padStart(2, "0")}`;
  return Uint8Array.of(DOLLAR, ...body, ...toBytes(end));
}

/** Takes a client's bytes apart, in pieces as they come. */
export class PacketReader {
  /** Raw data of the packet under way. */
  readonly #raw: Uint8Array<ArrayBuffer> = new Uint8Array(PACKET_SIZE);
  #length = 0;
  #inside = false;
  /** Characters of the checksum so far, while it is read. */
  #sum: string | undefined;

  /** What the next bytes give. */
  *push(bytes: Uint8Array): Generator<Received> {
    for (const byte of bytes) {
      const found = this.#next(byte);
      if (found !== undefined) yield found;
    }
  }

  #next(byte: number): Received | undefined {
    if (byte === DOLLAR) {
      // Inside a packet it would be escaped: the end of the last one was lost.
      this.#inside = true;
      this.#length = 0;
      this.#sum = undefined;
    } else if (this.#sum !== undefined) {
      this.#sum += String.fromCharCode(byte);
      if (this.#sum.length === 2) return this.#end(this.#sum);
    } else if (this.#inside) {
      if (byte === HASH) this.#sum = "";
      else {
        if (this.#length < PACKET_SIZE) this.#raw[this.#length] = byte;
        this.#length++;
      }
    } else if (byte === INTERRUPT) return { kind: "interrupt" };
    else if (byte === PLUS) return { kind: "ack" };
    else if (byte === MINUS) return { kind: "nack" };
    return undefined;
  }

  #end(checksum: string): Received {
    this.#inside = false;
    this.#sum = undefined;
    if (this.#length > PACKET_SIZE || !/^[0-9a-f]{2}$/i.test(checksum)) {
      return { kind: "damaged" };
    }
    const raw = this.#raw.subarray(0, this.#length);
    const sum = raw.reduce((a, b) => a + b, 0) & 255;
    if (sum !== parseInt(checksum, 16)) return { kind: "damaged" };
    let data = "";
    for (let at = 0; at < raw.length; at++) {
      data += String.fromCharCode(
        raw[at] === ESCAPE && at + 1 < raw.length
          ? raw[++at]! ^ 0x20
          : raw[at]!,
      );
    }
    return { kind: "packet", data };
  }
}
