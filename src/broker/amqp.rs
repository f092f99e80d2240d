//! RabbitMQ through lapin.

use super::{BrokerError, Delivery};

pub struct Consumer {}

impl Consumer {
    pub async fn next(&mut self) -> Option<Delivery> {
        todo!()
    }
    pub async fn close(self) {
        todo!()
    }
}

pub struct Walk {}

impl Walk {
    pub async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        todo!()
    }
    pub async fn close(self) {
        todo!()
    }
}

pub(super) async fn ack(_delivery: &lapin::message::Delivery) -> bool {
    todo!()
}
