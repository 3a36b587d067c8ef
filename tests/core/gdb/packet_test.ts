import { assertEquals } from "@std/assert";
import {
  encodePacket,
  fromBytes,
  PACKET_SIZE,
  PacketReader,
  type Received,
  toBytes,
} from "../../../core/gdb/packet.ts";

/** What a reader makes of some bytes. */
function read(...pieces: readonly string[]): Received[] {
  const reader = new PacketReader();
  return pieces.flatMap((piece) => [...reader.push(toBytes(piece))]);
}

function packet(data: string): Received {
  return { kind: "packet", data };
}

Deno.test("a packet has its data between $ and #, and a checksum", () => {
  assertEquals(fromBytes(encodePacket("OK")), "$OK#9a");
  assertEquals(fromBytes(encodePacket("")), "$#00");
  assertEquals(read("$OK#9a"), [packet("OK")]);
  assertEquals(read("$OK#9A"), [packet("OK")]);
});

Deno.test("every byte goes through a packet and back", () => {
  const all = fromBytes(Uint8Array.from({ length: 256 }, (_, n) => n));
  assertEquals(read(fromBytes(encodePacket(all))), [packet(all)]);
});

Deno.test("a packet may come in pieces, and several at once", () => {
  assertEquals(read("$", "g", "#", "6", "7"), [packet("g")]);
  assertEquals(read("+$g#67-$?#3f\x03"), [
    { kind: "ack" },
    packet("g"),
    { kind: "nack" },
    packet("?"),
    { kind: "interrupt" },
  ]);
});

Deno.test("byte 3 inside a packet is data", () => {
  assertEquals(read(fromBytes(encodePacket("X0,1:\x03"))), [
    packet("X0,1:\x03"),
  ]);
});

Deno.test("a wrong checksum is told, and the next packet is read", () => {
  const damaged: Received = { kind: "damaged" };
  assertEquals(read("$g#68$g#67"), [damaged, packet("g")]);
  assertEquals(read("$g#zz$g#67"), [damaged, packet("g")]);
});

Deno.test("a packet whose end was lost gives way to the next", () => {
  assertEquals(read("$m0,1$g#67"), [packet("g")]);
  assertEquals(read("$m0,1#$g#67"), [packet("g")]);
  assertEquals(read("noise#12$g#67"), [packet("g")]);
});

Deno.test("a packet that is too long is told, and nothing of it kept", () => {
  const most = "a".repeat(PACKET_SIZE);
  assertEquals(read(fromBytes(encodePacket(most))), [packet(most)]);
  assertEquals(read(fromBytes(encodePacket(`${most}a`)) + "$g#67"), [
    { kind: "damaged" },
    packet("g"),
  ]);
});

Deno.test("an escape at the end of a packet stands for itself", () => {
  assertEquals(read("$}#7d"), [packet("}")]);
});
