// What the compiler must accept and refuse; compiled by `npm run types`, never run.

import {
  close,
  createHerald,
  HeraldError,
  notifyPartner,
  publishSessionEvent,
  type AgreementProposedData,
  type ErrorCode,
  type Herald,
  type SessionEvent,
} from 'herald-client';

// The sketch's own calls and signatures.
type Sketch = {
  publishSessionEvent(sessionId: string, event: SessionEvent, data: Record<string, unknown>, excludeUserId?: string): Promise<unknown>;
  notifyPartner(sessionId: string, partnerId: string, event: SessionEvent, data: Record<string, unknown>): Promise<unknown>;
};
export const sketch: Sketch = { publishSessionEvent, notifyPartner };

export async function calls(sessionId: string, partnerId: string, name: string, event: SessionEvent, data: Record<string, unknown>) {
  const id: string = await notifyPartner(sessionId, partnerId, 'partner.advanced', { toStage: 2 });
  await notifyPartner(sessionId, partnerId, 'partner.advanced', { toStage: 2, more: true }, { id, expiresAt: new Date() });
  await notifyPartner(sessionId, partnerId, 'chat-item:new', { whatever: [1] }, { signal: AbortSignal.timeout(1_000), timeout: 2_000 });
  await notifyPartner(sessionId, partnerId, name, data);
  await notifyPartner(sessionId, partnerId, event, data);
  await publishSessionEvent(sessionId, 'session.paused', { pausedAt: '2026-01-31T12:00:00Z' }, partnerId);
  await publishSessionEvent(sessionId, 'session.paused', {}, undefined, { id });
  const proposed: AgreementProposedData = { agreementId: 'a1' };
  await publishSessionEvent(sessionId, 'agreement.proposed', proposed);

  // @ts-expect-error a stage is a number
  await notifyPartner(sessionId, partnerId, 'partner.advanced', { toStage: 'two' });
  // @ts-expect-error an agreement's id is a text
  await publishSessionEvent(sessionId, 'agreement.proposed', { agreementId: 1 });
  // @ts-expect-error data is an object
  await notifyPartner(sessionId, partnerId, 'chat-item:new', 'text');
  // @ts-expect-error data is needed
  await notifyPartner(sessionId, partnerId, 'partner.advanced');
  // @ts-expect-error there is no such option
  await notifyPartner(sessionId, partnerId, 'partner.advanced', {}, { expires: new Date() });
  // @ts-expect-error the excluded user is a parameter here
  await publishSessionEvent(sessionId, 'session.paused', {}, undefined, { excludeUserId: 'u1' });
  await close();
}

export async function own(): Promise<ErrorCode | undefined> {
  // @ts-expect-error a client needs an address
  createHerald({});
  const herald: Herald = createHerald({ url: 'amqp://127.0.0.1', prefix: 'herald', timeout: 5_000, socket: { ca: 'PEM' } });
  try {
    await herald.notifyPartner('s', 'p', 'session.resolved', { resolvedAt: '2026-01-31T12:00:00Z' });
    return undefined;
  } catch (error) {
    return error instanceof HeraldError ? error.code : undefined;
  } finally {
    const left: number = await herald.close({ timeout: 1_000 });
    console.log(left, herald.unconfirmed);
  }
}
