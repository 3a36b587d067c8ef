/**
 * Sealing and opening of KDNET datagrams. A datagram is 6 clear bytes (`MDBG`, version, channel), the
 * AES-256-CBC ciphertext of a metadata word, the payload and zero padding, and a 16-byte tag: the first
 * half of HMAC-SHA256 over clear bytes and plaintext, which is the initial vector too.
 *
 * The primitives are WebCrypto's, so that the same code runs in browsers, Deno, Node and Bun; they are
 * asynchronous, and so is all that stands on them. Measured in Deno, an operation on a full datagram
 * takes 10 to 14 microseconds, as much as `node:crypto` does.
 *
 * @module
 */

/** What a datagram is for, byte 5. */
export const KdnetChannel = {
  /** KD packets. */
  Data: 0,
  /** The handshake. */
  Control: 1,
} as const;
/** A value of {@linkcode KdnetChannel}. */
export type KdnetChannel = typeof KdnetChannel[keyof typeof KdnetChannel];

/** Who sent a datagram, a nibble of the metadata word. */
export const KdnetDirection = {
  /** From the target. */
  FromTarget: 0,
  /** From the debugger's host. */
  FromHost: 8,
} as const;

/** Clear bytes before the ciphertext. */
export const KDNET_HEADER = 6;
/** Bytes of the tag after it. */
export const KDNET_TAG = 16;
const MAGIC = 0x4d44_4247;
const BLOCK = 16;
const METADATA = 8;
const MIN_LENGTH = KDNET_HEADER + BLOCK + KDNET_TAG;
/** Largest payload that fits a UDP datagram. */
const MAX_PAYLOAD = 65_507 - KDNET_HEADER - KDNET_TAG - METADATA - BLOCK;

/** The part of a datagram that is to be read without a key. */
export interface KdnetHeader {
  /** Version of the protocol, chosen by the target: 1, 2, 4 and 5 have been seen. */
  version: number;
  /** What it is for. */
  channel: number;
}

/** What is inside a datagram. */
export interface KdnetContent {
  /** Version of the protocol, 0 to 255. */
  version: number;
  /** Sequence number, 56 bits. */
  sequence: bigint;
  /** A value of {@linkcode KdnetDirection}, 4 bits. */
  direction: number;
  /** What is carried, without padding. */
  payload: Uint8Array;
}

/** The clear part, or undefined if the bytes have not a KDNET datagram's form. */
export function parseKdnetHeader(
  datagram: Uint8Array,
): KdnetHeader | undefined {
  if (
    datagram.length < MIN_LENGTH ||
    (datagram.length - KDNET_HEADER - KDNET_TAG) % BLOCK !== 0
  ) return undefined;
  const view = new DataView(datagram.buffer, datagram.byteOffset);
  if (view.getUint32(0) !== MAGIC) return undefined;
  return { version: datagram[4]!, channel: datagram[5]! };
}

function importAes(key: Uint8Array<ArrayBuffer>): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", key, "AES-CBC", false, [
    "encrypt",
    "decrypt",
  ]);
}

/** Seals and opens the datagrams of one channel. */
export class KdnetCipher {
  /** The channel. */
  readonly channel: KdnetChannel;
  readonly #controlKey: Uint8Array<ArrayBuffer>;
  readonly #mac: CryptoKey;
  readonly #aes: CryptoKey;

  private constructor(
    channel: KdnetChannel,
    controlKey: Uint8Array<ArrayBuffer>,
    mac: CryptoKey,
    aes: CryptoKey,
  ) {
    this.channel = channel;
    this.#controlKey = controlKey;
    this.#mac = mac;
    this.#aes = aes;
  }

  /** The control channel's cipher. `key` is the 32 bytes of the control key. */
  static async control(key: Uint8Array): Promise<KdnetCipher> {
    const controlKey = new Uint8Array(key);
    // The MAC's key is the complement of the control key, on both channels.
    const mac = await crypto.subtle.importKey(
      "raw",
      controlKey.map((byte) => ~byte),
      { name: "HMAC", hash: "SHA-256" },
      false,
      ["sign"],
    );
    return new KdnetCipher(
      KdnetChannel.Control,
      controlKey,
      mac,
      await importAes(controlKey),
    );
  }

  /**
   * The data channel's cipher after a handshake: its key is SHA-256 over the control key and the
   * payload of the response, 322 bytes.
   */
  async data(response: Uint8Array): Promise<KdnetCipher> {
    const material = new Uint8Array(this.#controlKey.length + response.length);
    material.set(this.#controlKey);
    material.set(response, this.#controlKey.length);
    const key = await crypto.subtle.digest("SHA-256", material);
    return new KdnetCipher(
      KdnetChannel.Data,
      this.#controlKey,
      this.#mac,
      await importAes(new Uint8Array(key)),
    );
  }

  /**
   * Makes a datagram.
   *
   * @throws {RangeError} If the payload is too long for a UDP datagram.
   */
  async seal(content: KdnetContent): Promise<Uint8Array> {
    const { version, sequence, direction, payload } = content;
    if (payload.length > MAX_PAYLOAD) {
      throw new RangeError(`Cannot seal payload: ${payload.length} bytes`);
    }
    const padding = (BLOCK - (METADATA + payload.length) % BLOCK) % BLOCK;
    const clear = new Uint8Array(
      KDNET_HEADER + METADATA + payload.length + padding,
    );
    const view = new DataView(clear.buffer);
    view.setUint32(0, MAGIC);
    clear[4] = version;
    clear[5] = this.channel;
    view.setBigUint64(
      KDNET_HEADER,
      sequence << 8n | BigInt(direction << 4 | padding),
    );
    clear.set(payload, KDNET_HEADER + METADATA);
    const tag = await this.#tag(clear);
    const plain = clear.subarray(KDNET_HEADER);
    const sealed = await this.#encrypt(tag, plain);
    const datagram = new Uint8Array(clear.length + KDNET_TAG);
    datagram.set(clear.subarray(0, KDNET_HEADER));
    // WebCrypto pads always: the last block is its padding.
    datagram.set(sealed.subarray(0, plain.length), KDNET_HEADER);
    datagram.set(tag, clear.length);
    return datagram;
  }

  /** Opens a datagram of this channel; undefined if it is none, or forged, or for another key. */
  async open(datagram: Uint8Array): Promise<KdnetContent | undefined> {
    const header = parseKdnetHeader(datagram);
    if (header?.channel !== this.channel) return undefined;
    const end = datagram.length - KDNET_TAG;
    const tag = datagram.slice(end);
    const length = end - KDNET_HEADER;
    // WebCrypto wants padding: the block that decrypts to 16 bytes of padding is what an empty text
    // encrypts to after the last block.
    const padding = await this.#encrypt(
      datagram.slice(end - BLOCK, end),
      new Uint8Array(0),
    );
    const padded = new Uint8Array(length + BLOCK);
    padded.set(datagram.subarray(KDNET_HEADER, end));
    padded.set(padding, length);
    const plain = new Uint8Array(
      await crypto.subtle.decrypt(
        { name: "AES-CBC", iv: tag },
        this.#aes,
        padded,
      ),
    );
    const clear = new Uint8Array(end);
    clear.set(datagram.subarray(0, KDNET_HEADER));
    clear.set(plain, KDNET_HEADER);
    const expected = await this.#tag(clear);
    let difference = 0;
    for (let n = 0; n < KDNET_TAG; n++) difference |= tag[n]! ^ expected[n]!;
    if (difference !== 0) return undefined;
    const word = new DataView(plain.buffer).getBigUint64(0);
    const pad = Number(word & 15n);
    if (METADATA + pad > length) return undefined;
    return {
      version: header.version,
      sequence: word >> 8n,
      direction: Number(word >> 4n & 15n),
      payload: plain.subarray(METADATA, length - pad),
    };
  }

  async #tag(clear: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const mac = await crypto.subtle.sign("HMAC", this.#mac, clear);
    return new Uint8Array(mac, 0, KDNET_TAG);
  }

  async #encrypt(
    iv: Uint8Array<ArrayBuffer>,
    plain: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(
      await crypto.subtle.encrypt({ name: "AES-CBC", iv }, this.#aes, plain),
    );
  }
}
