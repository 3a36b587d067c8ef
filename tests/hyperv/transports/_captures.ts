/** A packet capture in the making, in either format and byte order. */
export interface CaptureForm {
  format: "pcap" | "pcap-ns" | "pcapng";
  little: boolean;
}

/** A capture of frames of one link type, a second apart, the first at 1000 seconds. */
export function captureOf(
  { format, little }: CaptureForm,
  linkType: number,
  frames: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const words = (...values: number[]): Uint8Array => {
    const bytes = new Uint8Array(values.length * 4);
    const view = new DataView(bytes.buffer);
    values.forEach((value, n) => view.setUint32(n * 4, value, little));
    return bytes;
  };
  const half = (a: number, b: number): number =>
    little ? b * 0x1_0000 + a : a * 0x1_0000 + b;
  const parts: Uint8Array[] = [];
  if (format === "pcapng") {
    const block = (type: number, body: Uint8Array): void => {
      const padded = new Uint8Array(Math.ceil(body.length / 4) * 4);
      padded.set(body);
      const length = padded.length + 12;
      parts.push(words(type, length), padded, words(length));
    };
    // The length of a section may be left open.
    const open = words(0xffff_ffff, 0xffff_ffff);
    const section = [words(0x1a2b_3c4d, half(1, 0)), open];
    block(0x0a0d_0d0a, join(section));
    // if_tsresol 6: microseconds.
    const option = new Uint8Array([6, 0, 0, 0]);
    const end = words(0);
    block(
      1,
      join([words(half(linkType, 0), 0), words(half(9, 1)), option, end]),
    );
    frames.forEach((frame, n) => {
      const ticks = (1000 + n) * 1e6;
      const header = words(
        0,
        Math.floor(ticks / 2 ** 32),
        ticks % 2 ** 32,
        frame.length,
        frame.length,
      );
      block(6, join([header, frame]));
    });
    return join(parts);
  }
  const magic = format === "pcap" ? 0xa1b2_c3d4 : 0xa1b2_3c4d;
  parts.push(words(magic, half(2, 4), 0, 0, 0x4_0000, linkType));
  frames.forEach((frame, n) => {
    parts.push(words(1000 + n, 0, frame.length, frame.length), frame);
  });
  return join(parts);
}

/** Bytes in a row. */
export function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
