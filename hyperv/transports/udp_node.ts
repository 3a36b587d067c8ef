import type { Buffer } from "node:buffer";
import { UdpTransport } from "./udp.ts";
import type { QueueLimits } from "./queue.ts";

function ipv4Number(address: string): number {
  return address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

/**
 * Connects a UDP socket to `host`:`port`, IPv4 or IPv6, and makes a transport of it. Uses `node:dgram`,
 * which Deno, Node and Bun have; it is loaded here and not at import. Needs the permission to
 * reach the host.
 *
 * @throws {Error} If the name cannot be resolved or the socket cannot be made.
 */
export async function connectUdp(
  host: string,
  port: number,
  limits?: QueueLimits,
): Promise<UdpTransport> {
  const { createSocket } = await import("node:dgram");
  const { lookup } = await import("node:dns/promises");
  const { address, family } = await lookup(host);
  const socket = createSocket(family === 6 ? "udp6" : "udp4");
  const transport = new UdpTransport(
    family === 4 ? { ipv4: ipv4Number(address), port } : undefined,
    limits,
  );
  await new Promise<void>((resolve, reject) => {
    socket.once("error", reject);
    socket.connect(port, address, () => {
      socket.off("error", reject);
      resolve();
    });
  });
  const failed = (error: Error | null): void => {
    if (!error) return;
    transport.onError(
      (error as { code?: string }).code === "ECONNREFUSED" ||
        /refused/i.test(error.message),
    );
  };
  socket.on("error", failed);
  socket.on("message", (data: Buffer) => {
    transport.onData(new Uint8Array(data.buffer, data.byteOffset, data.length));
  });
  transport.attach({
    send: (data) => socket.send(data, failed),
    close: () => socket.close(),
  });
  return transport;
}
