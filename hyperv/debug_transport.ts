/** Carries debug packets between the partition and a debugger. */
export interface DebugTransport {
  /**
   * Sends one datagram, the bare UDP payload.
   *
   * @param data Valid during the call only.
   * @returns False if it could not be taken; then nothing was sent. Never throws.
   */
  send(data: Uint8Array): boolean;
  /** Datagrams that wait to be received. */
  readonly pending: number;
  /** Bytes in them. */
  readonly pendingBytes: number;
  /** Takes the first datagram that waits. */
  receive(): Uint8Array | undefined;
  /** Called when a datagram has arrived or a reset was noticed. One listener. */
  onActivity: (() => void) | undefined;
  /** Whether the peer was found to be gone (port unreachable) since the last call. */
  takeReset(): boolean;
  /** Drops what waits; returns how many datagrams that were. */
  purgeIncoming(): number;
  /** The debugger's IPv4 address (as a number, host order) and port, where there is one. */
  readonly peer: DebugPeer | undefined;
  /** Lets go of sockets and files. */
  close(): void;
}

/** An IPv4 endpoint. */
export interface DebugPeer {
  /** Address in host order. */
  ipv4: number;
  /** UDP port. */
  port: number;
}
