import { createSocket, type Socket } from "node:dgram";
import type { Buffer } from "node:buffer";

/** The debugger's end in the demo: a loopback UDP socket that answers every packet. */
export class DemoPeer {
  /** Packets answered. */
  answered = 0;
  readonly #socket: Socket;
  /** Its UDP port. */
  readonly port: number;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.port = socket.address().port;
    socket.on("message", (data: Buffer, from) => {
      this.answered++;
      socket.send(
        `Debugger answer ${this.answered} to ${data.length} bytes`,
        from.port,
        from.address,
      );
    });
  }

  /** Binds a free loopback port. @throws {Error} If there is none or it is not permitted. */
  static async start(): Promise<DemoPeer> {
    const socket = createSocket("udp4");
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.bind(0, "127.0.0.1", resolve);
    });
    return new DemoPeer(socket);
  }

  /** Closes the socket. */
  close(): Promise<void> {
    return new Promise((resolve) => this.#socket.close(() => resolve()));
  }
}
