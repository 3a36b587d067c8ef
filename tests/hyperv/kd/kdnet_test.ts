/** Published vectors (unit tests of ReactOS's kdnet) and vectors that an independent coder made of the same facts. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  KdnetChannel,
  KdnetCipher,
  KdnetDirection,
  parseKdnetHeader,
} from "../../../hyperv/kd/cipher.ts";
import {
  encodePoke,
  encodeResponse,
  formatPokeAddress,
  mappedAddress,
  parsePoke,
  parseResponse,
} from "../../../hyperv/kd/handshake.ts";
import { parseKdnetKey } from "../../../hyperv/kd/key.ts";
import {
  encodeKdControl,
  encodeKdPacket,
  encodeOpening,
  KD_BREAK_IN,
  KdPacketType,
} from "../../../hyperv/kd/packet.ts";
import { encodeRequest } from "../../../hyperv/kd/manipulate.ts";

const KEY = "1.2.3.4";
const CLIENT_KEY = Uint8Array.from({ length: 32 }, (_, n) => n);
const HOST_KEY = Uint8Array.from({ length: 32 }, (_, n) => 0xa0 + n);
const RESPONSE = encodeResponse({ clientKey: CLIENT_KEY, hostKey: HOST_KEY });

async function sha256(bytes: Uint8Array): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", new Uint8Array(bytes));
  return new Uint8Array(hash).toHex();
}

function control(): Promise<KdnetCipher> {
  return KdnetCipher.control(parseKdnetKey(KEY));
}

Deno.test("a key text is four base-36 numbers, each little-endian", () => {
  const cases = [
    [KEY, "0100000000000000020000000000000003000000000000000400000000000000"],
    [
      "17890.af3489a.9345kjm.lio147",
      "84c61e0000000000ce21d6470500000042f7f19a04000000a7e18d4d00000000",
    ],
    [
      "a1b2c3.9zz.0.3w5e11264sgsf",
      "93e92b24000000009f320000000000000000000000000000ffffffffffffffff",
    ],
    [
      "3W5E11264SGSF.1.zz.10",
      "ffffffffffffffff01000000000000000f050000000000002400000000000000",
    ],
  ];
  for (const [text, key] of cases) {
    assertEquals(parseKdnetKey(text!).toHex(), key!, text);
  }
});

Deno.test("a key text with other parts is refused", () => {
  for (
    const text of [
      "",
      "1.2.3",
      "1.2.3.4.5",
      "1..3.4",
      "1.2.3.",
      "1.2.3.-4",
      "1.2.3.4 ",
      "1.2.3.é",
      "1.2.3.3w5e11264sgsg",
      "1.2.3.00000000000001",
    ]
  ) {
    assertThrows(
      () => parseKdnetKey(text),
      SyntaxError,
      `Cannot parse KDNET key ${text}: `,
    );
  }
});

Deno.test("datagrams are sealed as the published vectors say, and opened again", async () => {
  const cipher = await control();
  const payload = Uint8Array.from({ length: 21 }, (_, n) => n);
  const content = {
    version: 1,
    sequence: 0x0102_0304_0506_07n,
    direction: 0,
    payload,
  };
  const datagram = await cipher.seal(content);
  assertEquals(
    datagram.toHex(),
    "4d44424701014e8d336f89b7f38dc1f2d1fa1f18dd3cdf959871b89d3428b60d8735842ae6584db38f800dd2211b0b081a41bfb854d6",
  );
  assertEquals(await cipher.open(datagram), content);

  const response = Uint8Array.from({ length: 322 }, (_, n) => n * 7 + 3);
  const data = await cipher.data(response);
  const breakIn = await data.seal({
    version: 1,
    sequence: 9n,
    direction: 0,
    payload: KD_BREAK_IN,
  });
  assertEquals(
    breakIn.toHex(),
    "4d444247010057666634685d355db83b79f2252ca614a0f42402e4de529399d11e25363a93c6",
  );
  assertEquals((await data.open(breakIn))?.payload, KD_BREAK_IN);
  assertEquals(await cipher.open(breakIn), undefined);
});

Deno.test("a handshake and its first datagrams are as the independent vectors say", async () => {
  const cipher = await control();
  const poke = await cipher.seal({
    version: 5,
    sequence: 3n,
    direction: KdnetDirection.FromTarget,
    payload: encodePoke({
      clientKey: CLIENT_KEY,
      target: mappedAddress(0x0a00_0002, 50_000),
      host: mappedAddress(0x0a00_0001, 50_000),
      session: mappedAddress(0, 0),
    }),
  });
  assertEquals(poke.length, 374);
  assertEquals(
    await sha256(poke),
    "37b254a9430ab0ae96c1279362b40169f648e11e0b7a4f49c7667a4ef7dc5c97",
  );
  const direction = KdnetDirection.FromHost;
  const response = await cipher.seal({
    version: 5,
    sequence: 3n,
    direction,
    payload: RESPONSE,
  });
  assertEquals(response.length, 358);
  assertEquals(
    await sha256(response),
    "32867c0d44752fceef9a5dc3da59eff6fa0042d0d17ab35efc507e70b4070b6f",
  );
  const data = await cipher.data(RESPONSE);
  const seal = async (
    sequence: bigint,
    direction: number,
    payload: Uint8Array,
  ): Promise<string> =>
    (await data.seal({ version: 5, sequence, direction, payload })).toHex();
  assertEquals(
    await seal(1n, 0, encodeOpening(0x0a00_0001)),
    "4d44424705005d2bb146ba4fa6f7c2f363df00c1aa517c03cc80167ba177ab682ef50a04c3896922136c9e8883e8816743b64d7df6c1",
  );
  assertEquals(
    await seal(1n, direction, KD_BREAK_IN),
    "4d444247050040103d7ce83dd346554ca70632b74559d43efcf7af3e0f70e61fb41659d98ac9",
  );
  assertEquals(
    await seal(2n, direction, encodeKdControl(KdPacketType.Acknowledge, 0)),
    "4d4442470500a7d7d6ee491a5b37edb0b5b5536441bb8b1dc19f0d823cc285dc07e4baf7c35c76abb80adfefb621500b2a403710635e",
  );
  const version = encodeKdPacket(
    KdPacketType.StateManipulate,
    0x8000_0000,
    encodeRequest("GetVersion", {}),
  );
  assertEquals(
    await seal(3n, direction, version),
    "4d4442470500128d92ee9a3d7a99364ef755ddeccc68235b308baf3878d6f879c87fa874946c4ab205084eda8d0a90f367c936ced46708ba3a3102add914ac588aa74c932374aafe6a191f8b1934175f5f314dc88f468aac0603e483fda08339906a01abf285",
  );
});

Deno.test("pokes and responses are read as they were written, short pokes too", () => {
  const poke = {
    clientKey: CLIENT_KEY,
    target: mappedAddress(0x0a00_0002, 50_000),
    host: mappedAddress(0x0a00_0001, 50_001),
    session: mappedAddress(0, 0),
  };
  assertEquals(parsePoke(encodePoke(poke)), poke);
  const short = encodePoke({ clientKey: CLIENT_KEY });
  assertEquals(short.length, 34);
  assertEquals(parsePoke(short), { clientKey: CLIENT_KEY });
  assertEquals(parsePoke(short.subarray(1)), undefined);
  assertEquals(formatPokeAddress(poke.target), "10.0.0.2:50000");
  assertEquals(
    formatPokeAddress({ address: new Uint8Array(16).fill(1), port: 5 }),
    "[101:101:101:101:101:101:101:101]:5",
  );
  assertEquals(parseResponse(RESPONSE), {
    clientKey: CLIENT_KEY,
    hostKey: HOST_KEY,
  });
  assertEquals(parseResponse(RESPONSE.subarray(1)), undefined);
  assertEquals(parsePoke(RESPONSE), undefined);
});

Deno.test("a datagram with any bit flipped, or cut, is not opened", async () => {
  const cipher = await control();
  const datagram = await cipher.seal({
    version: 5,
    sequence: 1n,
    direction: 0,
    payload: new Uint8Array(20),
  });
  for (let bit = 0; bit < datagram.length * 8; bit++) {
    const forged = datagram.slice();
    forged[bit >> 3]! ^= 1 << (bit & 7);
    assertEquals(await cipher.open(forged), undefined, `bit ${bit}`);
  }
  for (let length = 0; length < datagram.length; length++) {
    assertEquals(await cipher.open(datagram.subarray(0, length)), undefined);
  }
  const other = await KdnetCipher.control(parseKdnetKey("1.2.3.5"));
  assertEquals(await other.open(datagram), undefined);
});

Deno.test("every payload length comes back, and the clear header shows version and channel", async () => {
  const cipher = await control();
  for (let length = 0; length <= 64; length++) {
    const payload = crypto.getRandomValues(new Uint8Array(length));
    const content = {
      version: 2,
      sequence: 2n ** 56n - 1n,
      direction: 8,
      payload,
    };
    const datagram = await cipher.seal(content);
    assertEquals(datagram.length, 22 + 16 * Math.ceil((8 + length) / 16));
    assertEquals(parseKdnetHeader(datagram), {
      version: 2,
      channel: KdnetChannel.Control,
    });
    assertEquals(await cipher.open(datagram), content);
  }
  assert(await cipher.open(new Uint8Array(38)) === undefined);
});
