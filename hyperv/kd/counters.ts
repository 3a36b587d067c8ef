/** What came in over a KDNET wire: enough to say why nobody connects. */
export interface KdnetCounters {
  /** Datagrams in all. */
  received: number;
  /** Not KDNET: no magic number, or a length that cannot be. */
  malformed: number;
  /** On the control channel, and not authentic: most likely another key. */
  wrongKey: number;
  /** On the data channel, and not authentic: forged, or of a session that is over. */
  forged: number;
  /** Authentic, but sent before: repeated, reordered or replayed. */
  replayed: number;
  /** Authentic, but not for this end, or no message that it knows. */
  unexpected: number;
}

/** Counters that begin at 0. */
export function kdnetCounters(): KdnetCounters {
  return {
    received: 0,
    malformed: 0,
    wrongKey: 0,
    forged: 0,
    replayed: 0,
    unexpected: 0,
  };
}
