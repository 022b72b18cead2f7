// A sink of CloudEvents as a user of the official SDK writes one.
//
//   node cloudevents_receiver.mjs
//
// It prints the port that it listens on, and then a line of JSON for each call: the
// attributes of the event, and the contact's address, which is in its data. A call
// that the SDK does not take for a valid CloudEvent is answered with 400.

import { createServer } from "node:http";
import { HTTP } from "cloudevents";

const server = createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray()).toString("utf8");
  try {
    const event = HTTP.toEvent({ headers: request.headers, body });
    event.validate();
    const { specversion, id, source, type, time, subject, datacontenttype, data } = event;
    const { email } = data.data.contact;
    console.log(JSON.stringify({ specversion, id, source, type, time, subject, datacontenttype, email }));
    response.writeHead(202).end();
  } catch (error) {
    console.error(error);
    response.writeHead(400).end();
  }
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
