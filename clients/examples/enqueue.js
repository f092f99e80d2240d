// Enqueues an event for herald with amqplib alone: persistent, routed and confirmed, or an error.
//
//     AMQP_URL=amqp://… node enqueue.js SESSION PARTNER

import { randomUUID } from 'node:crypto';
import { connect } from 'amqplib';

const connection = await connect(process.env.AMQP_URL);
const channel = await connection.createConfirmChannel();
const exchange = `${process.env.HERALD_BROKER__PREFIX ?? 'herald'}.events`;
const event = { id: randomUUID(), sessionId: process.argv[2], partnerId: process.argv[3], event: 'partner.advanced', data: { toStage: 3 } };
let returned = false;
channel.on('return', () => (returned = true));
channel.publish(exchange, event.event, Buffer.from(JSON.stringify(event)), { contentType: 'application/json', persistent: true, mandatory: true });
await channel.waitForConfirms(); // a message that came back is confirmed too
await connection.close();
if (returned) throw new Error(`${exchange} has no queue for it: start herald once`);
console.log(event.id);
