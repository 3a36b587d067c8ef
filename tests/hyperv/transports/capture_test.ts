import { assertEquals, assertThrows } from "@std/assert";
import { udpPacket } from "../../../hyperv/frames/ip.ts";
import { readCapture } from "../../../hyperv/transports/capture.ts";
import { PcapWriter } from "../../../hyperv/transports/pcap.ts";
import { Random } from "../kd/_hostile_wire.ts";
import { type CaptureForm, captureOf, join } from "./_captures.ts";

const FROM = { ipv4: 0x0a00_0505, port: 49_152 };
const TO = { ipv4: 0x0a00_0501, port: 50_000 };
const PAYLOAD = new TextEncoder().encode("hello");
const IP = udpPacket(PAYLOAD, FROM, TO);
const FORMS: CaptureForm[] = (["pcap", "pcap-ns", "pcapng"] as const).flatMap(
  (format) => [{ format, little: true }, { format, little: false }],
);
/** What comes before IP in a frame of each link type. */
const HEADERS: [number, string][] = [
  [0, "02000000"],
  [0, "00000002"],
  [1, "ffffffffffff0200000000010800"],
  [1, "ffffffffffff02000000000181000005" + "0800"],
  [1, "ffffffffffff02000000000188a80005" + "81000006" + "0800"],
  [12, ""],
  [101, ""],
  [108, "00000002"],
  [113, "00000001000602000000000100000800"],
  [228, ""],
  [276, "0800000000000001000100060200000000010000"],
];

Deno.test("captures of every format, byte order and link type are read", () => {
  for (const form of FORMS) {
    for (const [linkType, header] of HEADERS) {
      const frame = join([Uint8Array.fromHex(header), IP]);
      const found = [...readCapture(captureOf(form, linkType, [frame, frame]))];
      assertEquals(
        found,
        [1, 2].map((frame) => ({
          frame,
          time: (999 + frame) * 1000,
          from: FROM,
          to: TO,
          payload: PAYLOAD,
        })),
        `${form.format} ${linkType}`,
      );
    }
  }
});

Deno.test("frames with something else are passed over", () => {
  const arp = Uint8Array.fromHex(
    "ffffffffffff0200000000010806" + "00".repeat(28),
  );
  const ethernet = Uint8Array.fromHex("ffffffffffff0200000000010800");
  const frames = [arp, new Uint8Array(0), join([ethernet, IP]), ethernet];
  for (const form of FORMS) {
    const found = [...readCapture(captureOf(form, 1, frames))];
    assertEquals(found.map(({ frame }) => frame), [3], form.format);
    assertEquals([...readCapture(captureOf(form, 147, frames))], []);
  }
});

Deno.test("what PcapWriter writes is read", () => {
  const parts: Uint8Array[] = [];
  const writer = new PcapWriter(
    (bytes) => parts.push(bytes),
    undefined,
    () => 5,
  );
  writer.write(PAYLOAD, true);
  writer.write(PAYLOAD, false);
  const found = [...readCapture(join(parts))];
  assertEquals(found.map(({ from }) => from), [FROM, TO]);
  assertEquals(found.map(({ time }) => time), [5, 5]);
});

Deno.test("what is no capture is refused", () => {
  assertThrows(
    () => [...readCapture(new Uint8Array(24))],
    SyntaxError,
    "Cannot read capture: magic number 0x0",
  );
  assertThrows(() => [...readCapture(new Uint8Array(5))], SyntaxError);
});

Deno.test("a capture that is cut off or damaged ends or is refused, and does no more", () => {
  const random = new Random(0xca9);
  for (const form of FORMS) {
    const whole = captureOf(form, 101, [IP, IP, IP]);
    for (let length = 24; length < whole.length; length++) {
      const count = [...readCapture(whole.subarray(0, length))].length;
      assertEquals(count < 3, true);
    }
    for (let round = 0; round < 3000; round++) {
      const damaged = whole.slice();
      for (let n = 0; n < 4; n++) {
        damaged[random.below(whole.length)] = random.below(256);
      }
      try {
        for (const { payload } of readCapture(damaged)) {
          assertEquals(payload.length <= whole.length, true);
        }
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
      }
    }
  }
});
