import type { DebugPeer, DebugTransport } from "../debug_transport.ts";

/**
 * A transport that waits for its peer. Anybody can send to it, so it learns from its user whose datagrams are
 * genuine: what a stranger sends does not turn the answers away from the peer.
 */
export interface ListeningTransport extends DebugTransport {
  /**
   * Sends to whoever sent the datagram that was received last.
   *
   * @returns As {@linkcode DebugTransport.send}.
   */
  reply(data: Uint8Array): boolean;
  /** Says that the datagram received last is genuine: its sender is the peer from now on. */
  confirm(): void;
}

/** Whether a transport waits for its peer. */
export function isListening(
  transport: DebugTransport,
): transport is ListeningTransport {
  return "confirm" in transport && "reply" in transport;
}

/** Somebody who sent a datagram. */
export interface Sender {
  /** Address as text, IPv4 or IPv6. */
  address: string;
  /** UDP port. */
  port: number;
}

/** What {@linkcode DebugTransport.peer} says of a sender. */
export function peerOf(sender: Sender | undefined): DebugPeer | undefined {
  if (sender === undefined || !sender.address.includes(".")) return undefined;
  const parts = sender.address.replace(/^::ffff:/, "").split(".");
  const ipv4 = parts.reduce((sum, part) => sum * 256 + Number(part), 0);
  return { ipv4, port: sender.port };
}
