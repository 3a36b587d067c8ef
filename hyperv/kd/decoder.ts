import {
  KdnetChannel,
  KdnetCipher,
  KdnetDirection,
  parseKdnetHeader,
} from "./cipher.ts";
import { describeKd, formatKd, type KdMessage } from "./describe.ts";
import {
  formatPokeAddress,
  isKeepAlive,
  parsePoke,
  parseResponse,
} from "./handshake.ts";
import { parseKdnetKey } from "./key.ts";
import { parseKdContent } from "./packet.ts";

/** What could be read of a datagram. */
export interface DecodedDatagram {
  /** Bytes of it. */
  length: number;
  /** Version byte; from here on absent if it is no KDNET datagram. */
  version?: number;
  /** Its channel. */
  channel?: "data" | "control" | number;
  /** Sequence number; from here on absent if it could not be opened. */
  sequence?: bigint;
  /** Who sent it. */
  from?: "target" | "host";
  /** What a control datagram says. */
  handshake?: Handshake;
  /** What a data datagram says. */
  message?: KdMessage;
  /** Why not more could be read. */
  problem?: string;
}

/** A control datagram for a reader. */
export interface Handshake {
  /** What it is. */
  name: "Offer" | "KeepAlive" | "Response" | "OfferWanted" | "Unknown";
  /** The target's key in hexadecimal, 32 bytes. */
  clientKey?: string;
  /** The host's key in hexadecimal, 32 bytes. */
  hostKey?: string;
  /** The target's address and port. */
  target?: string;
  /** The host's. */
  host?: string;
  /** Who has the session. */
  session?: string;
}

/** Most handshakes whose data may still come. */
const MAX_CIPHERS = 8;

function describeHandshake(payload: Uint8Array): Handshake {
  const poke = parsePoke(payload);
  if (poke !== undefined) {
    const { clientKey, ...addresses } = poke;
    const texts = Object.entries(addresses).map((
      [name, address],
    ) => [name, formatPokeAddress(address)]);
    return {
      name: isKeepAlive(poke) ? "KeepAlive" : "Offer",
      clientKey: clientKey.toHex(),
      ...Object.fromEntries(texts),
    };
  }
  const response = parseResponse(payload);
  if (response !== undefined) {
    const { clientKey, hostKey } = response;
    return {
      name: "Response",
      clientKey: clientKey.toHex(),
      hostKey: hostKey.toHex(),
    };
  }
  return { name: payload.length === 0 ? "OfferWanted" : "Unknown" };
}

/** Reads what passes between a target and a debugger, both ways, with the key or without. */
export class KdnetDecoder {
  readonly #control: KdnetCipher | undefined;
  /** Ciphers of the responses seen, the one that was of use last first. */
  #data: KdnetCipher[] = [];

  private constructor(control: KdnetCipher | undefined) {
    this.#control = control;
  }

  /**
   * Makes a decoder.
   *
   * @param key Key text; without one only clear parts are read.
   * @throws {SyntaxError} If the key is none.
   */
  static async create(key?: string): Promise<KdnetDecoder> {
    return new KdnetDecoder(
      key === undefined
        ? undefined
        : await KdnetCipher.control(parseKdnetKey(key)),
    );
  }

  /** Reads a datagram. Calls must not overlap. */
  async decode(datagram: Uint8Array): Promise<DecodedDatagram> {
    const { length } = datagram;
    const header = parseKdnetHeader(datagram);
    if (header === undefined) return { length, problem: "not KDNET" };
    const { version } = header;
    const control = header.channel === KdnetChannel.Control;
    const clear: DecodedDatagram = {
      length,
      version,
      channel: control
        ? "control"
        : header.channel === KdnetChannel.Data
        ? "data"
        : header.channel,
    };
    if (this.#control === undefined) return { ...clear, problem: "no key" };
    if (typeof clear.channel === "number") {
      return { ...clear, problem: "unknown channel" };
    }
    const content = control
      ? await this.#control.open(datagram)
      : await this.#openData(datagram);
    if (content === undefined) {
      const problem = control
        ? "another key, or damaged"
        : this.#data.length === 0
        ? "no handshake seen"
        : "of another session, or damaged";
      return { ...clear, problem };
    }
    const { sequence, direction, payload } = content;
    const fromTarget = direction === KdnetDirection.FromTarget;
    const opened: DecodedDatagram = {
      ...clear,
      sequence,
      from: fromTarget ? "target" : "host",
    };
    if (!control) {
      const message = describeKd(parseKdContent(payload), fromTarget);
      return { ...opened, message };
    }
    const handshake = describeHandshake(payload);
    if (handshake.name === "Response" && !fromTarget) {
      this.#data.unshift(await this.#control.data(payload));
      this.#data.splice(MAX_CIPHERS);
    }
    return { ...opened, handshake };
  }

  async #openData(
    datagram: Uint8Array,
  ): ReturnType<KdnetCipher["open"]> {
    for (const cipher of this.#data) {
      const content = await cipher.open(datagram);
      if (content === undefined) continue;
      this.#data = [cipher, ...this.#data.filter((other) => other !== cipher)];
      return content;
    }
    return undefined;
  }
}

/** One line of a decoded datagram. */
export function formatDatagram(datagram: DecodedDatagram): string {
  const { length, version, channel, sequence, from, problem } = datagram;
  const words: string[] = [];
  if (version !== undefined) words.push(`v${version} ${channel}`);
  if (sequence !== undefined) words.push(`seq ${sequence} ${from}:`);
  if (datagram.handshake) {
    const { name, ...rest } = datagram.handshake;
    words.push(name, ...Object.entries(rest).flat());
  }
  if (datagram.message) words.push(formatKd(datagram.message));
  if (problem) words.push(`${length} bytes (${problem})`);
  return words.join(" ");
}

/** One JSON object of a decoded datagram; 64-bit numbers are hexadecimal strings. */
export function datagramJson(datagram: DecodedDatagram): string {
  return JSON.stringify(
    datagram,
    (_, value) => typeof value === "bigint" ? `0x${value.toString(16)}` : value,
  );
}
