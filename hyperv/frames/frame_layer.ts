import { arpReply, parseArp } from "./arp.ts";
import { dhcpReply, parseDhcp } from "./dhcp.ts";
import {
  type Endpoint,
  IPV4_HEADER,
  parseUdp,
  UDP_HEADER,
  type UdpDatagram,
  udpPacket,
} from "./ip.ts";
import { DEBUG_MAX_DATA } from "../defs/hypercall.ts";

const ETHERNET_HEADER = 14;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const HEADERS = ETHERNET_HEADER + IPV4_HEADER + UDP_HEADER;
const BROADCAST = 0xffff_ffff;
const BROADCAST_MAC = new Uint8Array(6).fill(255);
const ZERO_MAC = new Uint8Array(6);
/** Must differ from the guest's, which is all zeros. */
const SERVER_MAC = new Uint8Array([0, 0, 0, 0, 0, 1]);

/** How frames to and from the guest look. */
export interface FrameOptions {
  /** Answer DHCP and ARP; QEMU does not. */
  serveAddresses: boolean;
  /**
   * Ports of frames to the guest: the guest's own swapped, or (as QEMU) the debugger's
   * port for both.
   */
  swapPorts: boolean;
  /** Address and port of the debugger for QEMU's way. */
  debugger?: Endpoint;
  /** Address that the guest is given (host order). Default 10.0.5.5. */
  guest?: number;
  /** Address of the gateway that gives it. Default 10.0.5.1. */
  server?: number;
}

/** State that outlives a frame, as plain data. */
export interface FrameState {
  /** The guest's IPv4 address, host order. */
  guest: number;
  /** The guest's UDP port. */
  guestPort: number;
  /** The debugger's UDP port. */
  hostPort: number;
}

/**
 * Hypercall mode carries Ethernet frames where the wire carries bare payloads: this takes headers
 * off, puts them on, and answers what a kernel asks a network for before it debugs.
 */
export class FrameLayer {
  /** Longest payload whose frame fits a RETRIEVE. */
  readonly maxPayload: number = DEBUG_MAX_DATA - HEADERS;
  readonly #options: FrameOptions;
  readonly #guestAddress: number;
  readonly #serverAddress: number;
  #guest = 0;
  #guestPort = 0;
  #hostPort = 0;
  #reply: Uint8Array | undefined;

  constructor(options: FrameOptions) {
    this.#options = options;
    this.#guestAddress = options.guest ?? 0x0a00_0505;
    this.#serverAddress = options.server ?? 0x0a00_0501;
  }

  /** Whether an answer waits that the guest has not fetched. */
  get replyWaiting(): boolean {
    return this.#reply !== undefined;
  }

  /** Bytes of that answer. */
  get replyLength(): number {
    return this.#reply?.length ?? 0;
  }

  /** Takes the answer. */
  nextReply(): Uint8Array | undefined {
    const reply = this.#reply;
    this.#reply = undefined;
    return reply;
  }

  /**
   * What a frame of the guest has for the debugger: its payload, or undefined where
   * it was answered here or is none of ours.
   */
  fromGuest(frame: Uint8Array): Uint8Array | undefined {
    if (frame.length < ETHERNET_HEADER) return undefined;
    const packet = frame.subarray(ETHERNET_HEADER);
    switch ((frame[12]! << 8) | frame[13]!) {
      case ETHERTYPE_ARP:
        if (this.#options.serveAddresses) this.#arp(packet);
        return undefined;
      case ETHERTYPE_IPV4:
        break;
      default:
        return undefined;
    }
    // The frame came through memory, and not every kernel fills its checksums in.
    const datagram = parseUdp(packet, false);
    if (datagram === undefined) return undefined;
    if (this.#options.serveAddresses && this.#dhcp(datagram)) return undefined;
    this.#guest = datagram.from.ipv4;
    this.#guestPort = datagram.from.port;
    this.#hostPort = datagram.to.port;
    return datagram.payload;
  }

  /** The frame for a payload from the debugger. */
  toGuest(payload: Uint8Array): Uint8Array {
    const { swapPorts, debugger: host } = this.#options;
    const from = swapPorts
      ? { ipv4: this.#serverAddress, port: this.#hostPort }
      : { ipv4: host?.ipv4 ?? 0, port: host?.port ?? 0 };
    const to = {
      ipv4: this.#guest,
      port: swapPorts ? this.#guestPort : from.port,
    };
    return ethernet(
      ZERO_MAC,
      ZERO_MAC,
      ETHERTYPE_IPV4,
      udpPacket(payload, from, to),
    );
  }

  /** Bytes of the frame for a payload of `length` bytes. */
  frameLength(length: number): number {
    return length + HEADERS;
  }

  /** Forgets what was learnt of the guest. */
  reset(): void {
    this.#guest = 0;
    this.#guestPort = 0;
    this.#hostPort = 0;
    this.#reply = undefined;
  }

  /** Copies the state out. */
  save(): FrameState {
    return {
      guest: this.#guest,
      guestPort: this.#guestPort,
      hostPort: this.#hostPort,
    };
  }

  /** Takes state back; an answer that waited is lost, as any packet may be. */
  restore(state: FrameState): void {
    this.reset();
    this.#guest = state.guest >>> 0;
    this.#guestPort = state.guestPort & 0xffff;
    this.#hostPort = state.hostPort & 0xffff;
  }

  #arp(packet: Uint8Array): void {
    const request = parseArp(packet);
    // A guest that asks for its own address probes whether it is free: silence says yes.
    if (request === undefined || request.target !== this.#serverAddress) return;
    this.#reply = ethernet(
      request.senderMac,
      SERVER_MAC,
      ETHERTYPE_ARP,
      arpReply(request, SERVER_MAC),
    );
  }

  /** Whether a datagram was a DHCP client's, and so was answered. */
  #dhcp(datagram: UdpDatagram): boolean {
    if (datagram.from.port !== 68 || datagram.to.port !== 67) return false;
    const request = parseDhcp(datagram.payload);
    // Windows 8.1 sends debug packets between the DHCP ports.
    if (request === undefined) return false;
    const server = this.#serverAddress;
    this.#reply = ethernet(
      BROADCAST_MAC,
      SERVER_MAC,
      ETHERTYPE_IPV4,
      udpPacket(
        dhcpReply(request, this.#guestAddress, server),
        { ipv4: server, port: 67 },
        { ipv4: BROADCAST, port: 68 },
      ),
    );
    return true;
  }
}

function ethernet(
  to: Uint8Array,
  from: Uint8Array,
  type: number,
  packet: Uint8Array,
): Uint8Array {
  const frame = new Uint8Array(ETHERNET_HEADER + packet.length);
  frame.set(to, 0);
  frame.set(from, 6);
  frame[12] = type >> 8;
  frame[13] = type & 255;
  frame.set(packet, ETHERNET_HEADER);
  return frame;
}
