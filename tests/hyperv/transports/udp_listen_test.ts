import { assertEquals } from "@std/assert";
import { memoryPair } from "../../../hyperv/transports/memory_pair.ts";
import { Relay } from "../../../hyperv/transports/relay.ts";
import {
  ListeningUdpTransport,
  listenUdp,
} from "../../../hyperv/transports/udp_listen_node.ts";
import { connectUdp } from "../../../hyperv/transports/udp_node.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (data: Uint8Array | undefined): string =>
  new TextDecoder().decode(data);

Deno.test("a listening socket answers who sent last, and sends to who was confirmed", async () => {
  const listener = await listenUdp("127.0.0.1", 0);
  const peer = await connectUdp("127.0.0.1", listener.port);
  const stranger = await connectUdp("127.0.0.1", listener.port);
  const arrival = (): Promise<void> =>
    new Promise((resolve) => listener.onActivity = () => resolve());
  try {
    assertEquals(listener.send(bytes("nobody")), false);
    let came = arrival();
    peer.send(bytes("genuine"));
    await came;
    assertEquals(text(listener.receive()), "genuine");
    listener.confirm();
    assertEquals(listener.peer?.ipv4, 0x7f00_0001);
    came = arrival();
    stranger.send(bytes("forged"));
    await came;
    assertEquals(text(listener.receive()), "forged");
    const answers = Promise.all(
      [peer, stranger].map((end) =>
        new Promise<string>((resolve) => {
          end.onActivity = () => resolve(text(end.receive()));
        })
      ),
    );
    assertEquals(listener.send(bytes("to the peer")), true);
    assertEquals(listener.reply(bytes("to the stranger")), true);
    assertEquals(await answers, ["to the peer", "to the stranger"]);
  } finally {
    peer.close();
    stranger.close();
    listener.close();
  }
});

Deno.test("a listening transport keeps no more than its queue holds", () => {
  const sent: string[] = [];
  const transport = new ListeningUdpTransport(9, {
    send: (data, port) => sent.push(`${text(data)} ${port}`),
    close: () => sent.push("closed"),
  }, { datagrams: 2, bytes: 100 });
  for (let port = 1; port <= 5; port++) {
    transport.onData(bytes("x"), { address: "10.0.0.1", port });
  }
  transport.onData(new Uint8Array(0), { address: "10.0.0.1", port: 6 });
  assertEquals(transport.pending, 2);
  transport.receive();
  transport.receive();
  transport.confirm();
  assertEquals(transport.peer, { ipv4: 0x0a00_0001, port: 2 });
  transport.send(bytes("y"));
  transport.close();
  assertEquals(transport.send(bytes("z")), false);
  assertEquals(sent, ["y 2", "closed"]);
});

Deno.test("a relay passes both ways, and shows what passes", () => {
  const [guest, guestEnd] = memoryPair();
  const [host, hostEnd] = memoryPair();
  guest.send(bytes("early"));
  const seen: string[] = [];
  const relay = new Relay(guestEnd, hostEnd, (data, toDebugger) => {
    seen.push(`${toDebugger ? ">" : "<"} ${text(data)}`);
  });
  assertEquals(text(host.receive()), "early");
  host.send(bytes("answer"));
  assertEquals(text(guest.receive()), "answer");
  relay.close();
  host.send(bytes("late"));
  assertEquals(guest.pending, 0);
  assertEquals(seen, ["> early", "< answer"]);
});
