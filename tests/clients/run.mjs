// Runs the official clients against the sandbox at SANDBOX_URL; any failed assertion ends it with exit code 1.
// With RECORDING=<file> they only send what herald's own requests are held against, and it is written there.

import { save, url } from './sandbox.mjs';
import * as ablyCalls from './ably.mjs';
import * as expoCalls from './expo.mjs';
import * as recorded from './recorded.mjs';

// Read by the Expo SDKs when they are loaded.
process.env.EXPO_BASE_URL = url.origin;
const { Expo: Expo6 } = await import('expo-server-sdk-6');
const { Expo: Expo7 } = await import('expo-server-sdk-7');

const { ably, expo } = process.env.RECORDING ? recorded : { ...ablyCalls, ...expoCalls };
await ably();
await expo(Expo6, 'sdk6');
await expo(Expo7, 'sdk7');
if (process.env.RECORDING) await save(process.env.RECORDING);
console.log('the official clients are content');
